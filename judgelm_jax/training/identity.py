"""What makes a run this run: what must stay as it was when the run goes on, and what all of its processes must agree on."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from judgelm_jax.training_config import TrainConfig

Facts = dict[str, Any]  # JSON values by name

# In the folder of a run: its identity, and a line a step, an evaluation, an epoch.
RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
# Its lock, saved steps, and what the run leaves.
LOCK = "lock"
CHECKPOINTS = "checkpoints"
MODEL_FOLDER = "model"
ADAPTER_FOLDER = "adapter"

# The fields of the config that may change on the way, each with the reason. Every other field is part of the identity.
FREE = {
    "training.micro_batch": "cuts a batch into sums whose total is the same up to rounding",
    "training.skipped_in_a_row": "says when to give up",
    "computation.mesh": "places the same computation on other devices",
    "computation.attention": "computes the same attention with another kernel",
    "computation.remat": "computes again instead of keeping",
    "computation.loss_chunk": "cuts a sum",
    "computation.peak_tflops": "scales a figure that is shown",
    "evaluation.every": "says how often to measure",
    "checkpoints.every": "says how often to save",
    "checkpoints.keep": "says how many saved steps stay",
}

_FLAGS = {
    "data_sha256": "--data",
    "evaluation_sha256": "--evaluation",
    "init_fingerprint": "--init_from",
    "tokenizer_sha256": "the tokenizer",
}
_MISSING = object()


def identity_of(config: TrainConfig, facts: Mapping[str, Any]) -> Facts:
    """What a run that goes on must have in common with its beginning: the fields that are not `FREE`, and `facts`."""
    return {name: value for name, value in _fields(config).items() if name not in FREE} | _plain(facts)


def agreement_of(config: TrainConfig, identity: Mapping[str, Any], **settings: Any) -> Facts:
    """What all processes of a run must have in common: its identity, the free fields and `settings`."""
    return {**identity, **_fields(config), **_plain(settings)}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of the facts that differ, those of the config as they stand in it."""
    return [name for name in {**now, **before} if before.get(name, _MISSING) != now.get(name, _MISSING)]


def described(name: str, facts: Mapping[str, Any]) -> str:
    """The value of a fact, as an error shows it."""
    value = facts.get(name, _MISSING)
    if value is _MISSING:
        return "unknown"
    text = value if isinstance(value, str) else json.dumps(value)
    if name in _FLAGS and isinstance(value, str):
        return f"that of digest {text[:12]}"
    return text if len(text) <= 80 else text[:77] + "..."


def title(name: str) -> str:
    """What an error calls a fact."""
    return _FLAGS.get(name, name)


def _fields(config: TrainConfig) -> Facts:
    sections = dataclasses.asdict(config)
    return _plain({f"{section}.{field}": value for section, values in sections.items() for field, value in values.items()})


def _plain(facts: Mapping[str, Any]) -> Facts:
    """As JSON gives them back: tuples become lists."""
    return dict(json.loads(json.dumps(facts)))
