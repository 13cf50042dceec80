"""What `--help` says of the fields of a config, and how wrong overrides are named."""

import dataclasses
import typing

import pytest

from judgelm_jax.commands import train
from judgelm_jax.commands.command_line import run
from judgelm_jax.training.config_fields import help_lines
from judgelm_jax.training_config import TrainConfig

SECTIONS = typing.get_type_hints(TrainConfig)


def test_every_field_is_listed_with_default_and_meaning(capsys):
    assert run(train.main, train.FLAGS, "train", ["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for section, kind in SECTIONS.items():
        for field in dataclasses.fields(kind):
            after = shown.partition(f"--config.{section}.{field.name}: ")[2].partition(" --config.")[0]
            assert len(after.split()) >= 3, field.name
            if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
                assert f"(default: {field.default})" in after
    assert help_lines().count("--config.") == sum(len(dataclasses.fields(kind)) for kind in SECTIONS.values())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.batch=many", "--config.training.batch=many: must be a whole number"),
        ("training.batch=1.5", "--config.training.batch=1.5: must be a whole number"),
        ("training.learning_rate=x", "--config.training.learning_rate=x: must be a number"),
        ("data.ref_drop_ratio=x", "--config.data.ref_drop_ratio=x: must be a number"),
        ("data.packing=maybe", "--config.data.packing=maybe: must be true or false"),
        ("training.learning=1", "--config.training.learning: training has no field 'learning'; did you mean learning_rate?"),
        ("trainin.batch=1", "--config.trainin.batch: the config has no 'trainin'; did you mean training?"),
        ("training=1", "--config.training: is a section; set its fields (epochs, "),
        ("lora.zzz=1", "--config.lora.zzz: lora has no field 'zzz'; there are rank, alpha, targets"),
        ("training.batch.size=1", "--config.training.batch.size: training has no field 'batch.size'"),
    ],
)
def test_a_wrong_override_is_named_by_its_field(override, said, tmp_path, capsys):
    arguments = ["--config=configs/tiny.py", "--data=d", f"--output={tmp_path / 'o'}", f"--config.{override}"]
    assert run(train.main, train.FLAGS, "train", arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "class" not in err
    assert err.count("\n") == 1


def test_overrides_need_a_config(capsys):
    assert run(train.main, train.FLAGS, "train", ["--config.training.batch=8", "--data=d", "--output=o"]) == 2
    assert "--config is missing" in capsys.readouterr().err
