"""The configs that come along, and what a config may not say."""

import runpy
import sys
from pathlib import Path

import pytest
from absl import flags as flags_of_absl
from ml_collections import config_flags

from judgelm_jax.errors import InputError
from judgelm_jax.training_config import LoraConfig, TrainConfig, check

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_one(path):
    config = runpy.run_path(str(path))["get_config"]()
    assert isinstance(config, TrainConfig)
    check(config)


@pytest.mark.parametrize(("name", "parameters"), [("7b", 6_738_415_616), ("13b", 13_015_864_320), ("33b", 32_528_943_616)])
def test_the_published_recipe(name, parameters):
    """Sizes are those that LLaMA's paper and checkpoints give, with 32,000 words."""
    path = Path(__file__).parent.parent / "configs" / f"judgelm_{name}.py"
    config = runpy.run_path(str(path))["get_config"]()
    shape, recipe = config.model, config.training
    layer = 4 * shape.hidden_size**2 + 3 * shape.hidden_size * shape.intermediate_size + 2 * shape.hidden_size
    assert shape.num_layers * layer + 2 * 32000 * shape.hidden_size + shape.hidden_size == parameters
    assert (recipe.batch, recipe.learning_rate, recipe.epochs, recipe.warmup, recipe.weight_decay) == (128, 2e-5, 3, 0.03, 0.0)
    assert (config.data.length, config.data.packing) == (2048, False)
    assert (config.data.swap_augmentation, config.data.reference_support, config.data.reference_drop) == (0.5, True, 0.5)
    assert config.computation.dtype == "bfloat16"
    assert config.lora.rank == 0


def test_the_published_name_of_reference_drop_is_converted():
    config = TrainConfig()
    config.data.ref_drop_ratio = 0.2  # there: the probability of *adding* the reference
    check(config)
    assert (config.data.reference_drop, config.data.ref_drop_ratio) == (pytest.approx(0.8), None)
    config.data.ref_drop_ratio = 1.5
    with pytest.raises(InputError, match=r"--config.data.ref_drop_ratio=1.5: must be from 0 to 1"):
        check(config)


@pytest.mark.parametrize(
    "flags",
    [["q_proj,v_proj"], ["q_proj, v_proj"], ["('q_proj', 'v_proj')"], ["q_proj", "v_proj"], ['["q_proj","v_proj"]']],
    ids=" ".join,
)
def test_adapter_targets_are_overridden_as_people_write_lists(tmp_path, flags):
    (tmp_path / "c.py").write_text(
        "from judgelm_jax.training_config import *\n\n\ndef get_config():\n    return TrainConfig()\n"
    )
    values, argv, before = flags_of_absl.FlagValues(), [f"--config={tmp_path / 'c.py'}"], sys.argv
    config_flags.DEFINE_config_file("config", None, flag_values=values)
    sys.argv = ["train", *argv, *(f"--config.lora.targets={flag}" for flag in flags)]
    try:
        values(sys.argv)
    finally:
        sys.argv = before
    check(values.config)
    assert values.config.lora.targets == ("q_proj", "v_proj")


@pytest.mark.parametrize("targets", [(), ("q_proj", "lm_head"), ("",), ("q_proj,",), (3,)])
def test_unknown_adapter_targets_are_refused(targets):
    with pytest.raises(InputError, match=r"--config.lora.targets=.*must be of q_proj, k_proj"):
        check(TrainConfig(lora=LoraConfig(rank=2, targets=targets)))


@pytest.mark.parametrize("value", [float("nan"), -1.0, 11.0])
def test_a_learning_rate_that_is_none_is_refused(value):
    config = TrainConfig()
    config.training.learning_rate = value
    with pytest.raises(InputError, match=r"--config.training.learning_rate="):
        check(config)
