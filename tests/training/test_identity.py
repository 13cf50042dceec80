"""What may change when a run goes on, and what may not."""

import dataclasses

import pytest

from judgelm_jax.training import identity
from judgelm_jax.training_config import TrainConfig

FIELDS = [
    f"{section.name}.{field.name}"
    for section in dataclasses.fields(TrainConfig)
    for field in dataclasses.fields(getattr(TrainConfig(), section.name))
]


def changed(name):
    """A config with another value in one field."""
    config = TrainConfig()
    section, field = name.split(".")
    value = getattr(getattr(config, section), field)
    other = {bool: lambda v: not v, str: lambda v: v + "2", tuple: lambda v: v[:1], type(None): lambda v: 0.5}
    setattr(getattr(config, section), field, other.get(type(value), lambda v: v + 1)(value))
    return config


def test_every_free_field_exists():
    assert set(identity.FREE) <= set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_free_or_named_when_it_changes_and_processes_agree_on_all(name):
    before, now = (identity.identity_of(config, {"data_sha256": "a"}) for config in (TrainConfig(), changed(name)))
    assert identity.changes(before, now) == ([] if name in identity.FREE else [name])
    everyone = [identity.agreement_of(c, i) for c, i in ((TrainConfig(), before), (changed(name), now))]
    assert identity.changes(*everyone) == [name]


def test_what_was_decided_of_fields_in_doubt():
    assert "training.micro_batch" in identity.FREE  # the same sums
    assert {"evaluation.records", "checkpoints.export_dtype", "checkpoints.best"}.isdisjoint(identity.FREE)  # other results


def test_a_change_is_described_by_its_values():
    before, now = (identity.identity_of(config, {}) for config in (TrainConfig(), changed("lora.targets")))
    assert identity.described("lora.targets", before) == '["q_proj", "v_proj"]'
    assert identity.described("lora.targets", now) == '["q_proj"]'
    assert identity.described("training.learning_rate", before) == "2e-05"
    assert identity.described("nothing", before) == "unknown"
    assert identity.described("data_sha256", {"data_sha256": "0123456789abcdef"}) == "that of digest 0123456789ab"
