"""A small judge from random weights on a few thousand real judgments, with the LLaMA tokenizer, in 20 minutes on two cores.

It learns what judgments look like and which scores are common; for more, a pre-trained model is needed.
"""

from judgelm_jax.training_config import (
    CheckpointConfig,
    ComputationConfig,
    DataConfig,
    EvaluationConfig,
    ModelShape,
    RecipeConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    return TrainConfig(
        model=ModelShape(
            hidden_size=128,
            intermediate_size=344,
            num_layers=4,
            num_heads=4,
            num_kv_heads=4,
            context=2048,
            tied_embeddings=True,
        ),
        data=DataConfig(length=1024, packing=True),
        training=RecipeConfig(epochs=1, batch=16, learning_rate=2e-3),
        computation=ComputationConfig(dtype="float32", mesh="data:-1", remat="none"),
        evaluation=EvaluationConfig(every=50, records=128),
        checkpoints=CheckpointConfig(every=50, export_dtype="float32"),
    )
