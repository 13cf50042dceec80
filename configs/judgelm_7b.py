"""JudgeLM-7B: a full fine-tune of Vicuna-7B with the published recipe (Zhu et al., arXiv 2310.17631)."""

from judgelm_jax.training_config import ModelShape, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(model=ModelShape())
