"""JudgeLM-33B: a full fine-tune of Vicuna-33B with the published recipe (Zhu et al., arXiv 2310.17631)."""

from judgelm_jax.training_config import ModelShape, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        model=ModelShape(hidden_size=6656, intermediate_size=17920, num_layers=60, num_heads=52, num_kv_heads=52)
    )
