"""JudgeLM-13B: a full fine-tune of Vicuna-13B with the published recipe (Zhu et al., arXiv 2310.17631)."""

from judgelm_jax.training_config import ModelShape, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        model=ModelShape(hidden_size=5120, intermediate_size=13824, num_layers=40, num_heads=40, num_kv_heads=40)
    )
