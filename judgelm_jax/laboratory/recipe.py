"""How the small judges of the laboratory are trained: 0.4 million parameters, about two minutes on two CPU cores each."""

from judgelm_jax.training_config import (
    CheckpointConfig,
    ComputationConfig,
    DataConfig,
    ModelShape,
    RecipeConfig,
    TrainConfig,
)

TRAINING_RECORDS = 17_920  # 560 steps in two epochs


def get_config() -> TrainConfig:
    """The recipe with all techniques; the ablation switches them off."""
    return TrainConfig(
        model=ModelShape(hidden_size=96, intermediate_size=256, num_layers=3, num_heads=3, num_kv_heads=3, context=2048),
        data=DataConfig(swap_augmentation=0.5, reference_support=True, reference_drop=0.5, length=49),
        training=RecipeConfig(epochs=2, batch=64, learning_rate=2e-3, beta2=0.98),
        computation=ComputationConfig(dtype="float32", mesh="data:-1", remat="none"),
        checkpoints=CheckpointConfig(every=1000, keep=1, best_by="last", export_dtype="float32"),
    )
