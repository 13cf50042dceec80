"""A model that trains from random weights on a laptop CPU in minutes: to try the way, not to judge."""

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
        model=ModelShape(hidden_size=64, intermediate_size=160, num_layers=2, num_heads=4, num_kv_heads=2, context=2048),
        data=DataConfig(length=1024, packing=True),
        training=RecipeConfig(epochs=1, batch=8, learning_rate=3e-3),
        computation=ComputationConfig(dtype="float32", mesh="data:-1", remat="none"),
        evaluation=EvaluationConfig(records=64),
        checkpoints=CheckpointConfig(every=100, export_dtype="float32"),
    )
