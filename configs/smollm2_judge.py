"""SmolLM2-135M-Instruct, a real pre-trained model, fine-tuned on GPT-4's judgments: the paper's experiment in small.

Against the published recipe for 7B: a higher learning rate and smaller batches, because a model of 135 million parameters
needs larger steps, and a few thousand rows give few of them; rows of 1,024 tokens, which hold about nine of ten reviews whole
(the answers of the others are shortened), one review a row: packed, there are 5 % fewer rows, and the kernel for packed rows is
slower than that saves. The defaults are the schedule for a GPU; configs/README.md has that for two CPU cores, and what
came of it.
"""

from judgelm_jax.training_config import (
    CheckpointConfig,
    ComputationConfig,
    DataConfig,
    EvaluationConfig,
    RecipeConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    return TrainConfig(
        data=DataConfig(length=1024),
        training=RecipeConfig(epochs=3, batch=8, learning_rate=3e-4),
        computation=ComputationConfig(mesh="data:-1"),
        evaluation=EvaluationConfig(every=100, records=150),
        checkpoints=CheckpointConfig(every=100),
    )
