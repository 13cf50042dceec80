"""What is asked of a judge. Imports no JAX."""

import dataclasses
import math
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.kinds import KINDS
from judgelm_jax.model.config import ATTENTION_BACKENDS
from judgelm_jax.presets import JUDGELM, kind_of
from judgelm_jax.records.conversations import LAST, TURNS
from judgelm_jax.verdicts import distributions


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """What is asked of a judge; each field is a flag of `judge`.

    `orders` is of two answers (None: forward), `arrangements` of any number (None: one), a number or `all`: see
    `arrangements.arrangements`. `cache_dtype` is that of keys and values in the slots that decode (None: `dtype`). Every field
    may change a verdict but `attention`, `batch_size` and `device_memory` (GiB that a device may use; None: what it has), which
    may round otherwise, and `keep_as`, which goes before the names of those fields of a record that a judgment has, too.
    """

    kind: str = "pair"
    preset: str = JUDGELM
    turns: str = LAST
    mode: str = "scores"
    orders: str | None = None
    arrangements: int | str | None = None
    reference: str = "auto"
    temperature: float = 0.0
    seed: int = 0
    max_new_tokens: int = 512
    on_overflow: str = "truncate"
    dtype: str = "bfloat16"
    score_grid: str = "1:10:1"
    attention: str = "auto"
    batch_size: int | None = None
    device_memory: float | None = None
    keep_as: str | None = None
    cache_dtype: str | None = None

    KINDS = tuple(KINDS)
    MODES = ("scores", "explain", "distribution")
    ORDERS = ("forward", "reversed", "both")
    TURNS = TURNS
    REFERENCES = ("auto", "none", "required")
    OVERFLOWS = ("truncate", "error", "skip", "pairs")
    DTYPES = ("bfloat16", "float32")
    CACHE_DTYPES = ("int8",)
    ATTENTIONS = ("auto", *ATTENTION_BACKENDS)

    def __post_init__(self) -> None:
        choices = {
            "kind": self.KINDS,
            "mode": self.MODES,
            "turns": self.TURNS,
            "reference": self.REFERENCES,
            "on_overflow": self.OVERFLOWS,
            "dtype": self.DTYPES,
            "attention": self.ATTENTIONS,
        }
        if self.orders is not None:
            choices["orders"] = self.ORDERS
        if self.cache_dtype is not None:
            choices["cache_dtype"] = self.CACHE_DTYPES
        for field, values in choices.items():
            if getattr(self, field) not in values:
                raise InputError(f"{field} is {getattr(self, field)!r}; it must be one of {', '.join(values)}")
        if self.on_overflow == "pairs" and KINDS[self.kind].answers[1] is not None:
            raise InputError(
                f"on_overflow=pairs judges many answers two by two, and the kind {self.kind!r} has no more than two; use "
                "truncate, skip or error"
            )
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature is {self.temperature}; it must be 0 (greedy) or a positive number")
        if self.mode == "distribution" and self.temperature:
            raise InputError("temperature does not go with the mode distribution, which samples nothing; leave it at 0")
        if self.mode != "explain" and self.cache_dtype is not None:
            raise InputError(
                f"cache_dtype={self.cache_dtype} is for the mode explain, and the mode is {self.mode}; leave it out, "
                "or set the mode"
            )
        distributions.grid(self.score_grid)
        kind_of(self.kind, self.preset, self.turns)
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if self.device_memory is not None and not (math.isfinite(self.device_memory) and self.device_memory > 0):
            raise InputError(f"device_memory is {self.device_memory}; it must be a positive number of GiB")
        if self.keep_as == "":
            raise InputError("keep_as is empty, which renames nothing; give it a value such as input_")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size}; it must be at least 1")

    @property
    def slots_dtype(self) -> str:
        """The dtype of keys and values in the slots that decode; elsewhere they have that of the computation."""
        return self.cache_dtype or self.dtype

    def of_call(
        self,
        kind: str | None,
        mode: str | None,
        orders: str | None,
        arrangements: int | str | None,
        temperature: float | None,
    ) -> "JudgeConfig":
        """These settings with those of one call, where it has any; what means nothing beside them is left out."""
        given = {"kind": kind, "mode": mode, "orders": orders, "arrangements": arrangements, "temperature": temperature}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        other_kind = kind not in (None, self.kind)
        if other_kind or orders is not None or arrangements is not None:
            changes |= {"orders": orders, "arrangements": arrangements}  # one says what the other would, too
        if other_kind:
            changes["turns"] = LAST
        if mode not in (None, "explain"):
            changes["cache_dtype"] = None
        return dataclasses.replace(self, **changes)
