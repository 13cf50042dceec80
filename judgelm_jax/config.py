"""The dataclasses that describe a model and a mesh, and the reading of a Hugging Face `config.json`."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from judgelm_jax import distributions
from judgelm_jax.errors import InputError

# A key of `config.json` and the values under which it changes nothing that we compute. Any other value is refused by name.
_NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "attention_multiplier": (None,),
    "attn_logit_softcapping": (None,),
    "auto_map": (None,),
    "clip_qkv": (None,),
    "embedding_multiplier": (None, 1, 1.0),
    "final_logit_softcapping": (None,),
    "hidden_act": ("silu", "swish"),
    "is_decoder": (None, False, True),
    "is_encoder_decoder": (None, False),
    "layer_types": (None,),
    "logit_scale": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "mlp_bias": (False, None),
    "num_experts": (None,),
    "num_local_experts": (None,),
    "partial_rotary_factor": (None, 1, 1.0),
    "quantization_config": (None,),
    "residual_multiplier": (None, 1, 1.0),
    "sliding_window": (None,),
    "use_qk_norm": (None, False),
    "use_sliding_window": (None, False),
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts longer than those of pre-training.

    `kind` is `linear` (positions divided by `factor`; Chen et al., arXiv 2306.15595) or `llama3` (low frequencies divided by
    `factor`, high ones kept, a smooth passage between; the release notes of Llama 3.1).
    """

    kind: str
    factor: float
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 8192


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A LLaMA-family decoder. Sizes are counts; `head_dim` is the width of one attention head."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context: int
    norm_epsilon: float
    rope_base: float
    rope_scaling: RopeScaling | None
    tied_embeddings: bool
    bos_id: int | None
    eos_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        for field in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "context",
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{field} is {value!r}; it must be a whole number of at least 1")
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"{self.num_heads} attention heads do not divide into {self.num_kv_heads} key/value heads; "
                "num_attention_heads must be a multiple of num_key_value_heads"
            )
        if self.head_dim % 2:
            raise InputError(f"head_dim is {self.head_dim}; rotary embeddings need an even number")
        for field in ("norm_epsilon", "rope_base"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{field} is {value!r}; it must be a positive number")

    @staticmethod
    def from_hf(values: Mapping[str, Any]) -> "ModelConfig":
        """Reads the content of a `config.json`, old form (`rope_theta`, `rope_scaling`) or new (`rope_parameters`).

        Raises:
          InputError: a field is missing or wrong, or names a feature that this model does not have.
        """
        if values.get("model_type") != "llama":
            raise InputError(f"model_type is {values.get('model_type')!r}; only 'llama' is supported")
        for key, neutral in _NEUTRAL_VALUES.items():
            if key in values and values[key] not in neutral:
                if key == "layer_types" and set(values[key]) == {"full_attention"}:
                    continue
                raise InputError(f"{key} is {values[key]!r}; this feature is not supported")
        try:
            heads = values["num_attention_heads"]
            head_dim = values.get("head_dim") or values["hidden_size"] // heads
            base, scaling = _rope(values)
            return ModelConfig(
                vocab_size=values["vocab_size"],
                hidden_size=values["hidden_size"],
                intermediate_size=values["intermediate_size"],
                num_layers=values["num_hidden_layers"],
                num_heads=heads,
                num_kv_heads=values.get("num_key_value_heads") or heads,
                head_dim=head_dim,
                context=values.get("max_position_embeddings", 2048),
                norm_epsilon=float(values.get("rms_norm_eps", 1e-6)),
                rope_base=base,
                rope_scaling=scaling,
                tied_embeddings=bool(values.get("tie_word_embeddings", False)),
                bos_id=values.get("bos_token_id", 1),
                eos_ids=_token_ids(values.get("eos_token_id", 2)),
            )
        except KeyError as error:
            raise InputError(f"the field {error.args[0]!r} is missing") from error
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise InputError(f"a field has a value of the wrong type ({error})") from error

    def to_hf(self, dtype: str) -> dict[str, Any]:
        """The `config.json` of this model, in the form that every version of `transformers` since 4.43 reads."""
        values: dict[str, Any] = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.context,
            "hidden_act": "silu",
            "rms_norm_eps": self.norm_epsilon,
            "rope_theta": self.rope_base,
            "rope_scaling": None,
            "tie_word_embeddings": self.tied_embeddings,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": self.bos_id,
            "eos_token_id": self.eos_ids[0] if len(self.eos_ids) == 1 else list(self.eos_ids),
            "torch_dtype": dtype,
        }
        scaling = self.rope_scaling
        if scaling is not None and scaling.kind == "linear":
            values["rope_scaling"] = {"rope_type": "linear", "type": "linear", "factor": scaling.factor}
        elif scaling is not None:
            values["rope_scaling"] = {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_frequency_factor,
                "high_freq_factor": scaling.high_frequency_factor,
                "original_max_position_embeddings": scaling.original_context,
            }
        return values


def read_hf_config(path: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """Reads `config.json`; returns the model that it describes and its raw content. Errors name the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; a checkpoint needs its config.json") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no JSON object; fetch the checkpoint again")
    try:
        return ModelConfig.from_hf(values), values
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _rope(values: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """The base of the rotary frequencies and their scaling, from the old or the new form of the config."""
    new = values.get("rope_parameters")
    scaling = (values.get("rope_scaling") if new is None else new) or {}
    if not isinstance(scaling, dict):
        raise InputError(f"rope_scaling is {scaling!r}; it must be an object")
    base = scaling.get("rope_theta", values.get("rope_theta", 10000.0))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return float(base), None
    if kind == "linear":
        return float(base), RopeScaling("linear", float(scaling["factor"]))
    if kind == "llama3":
        return float(base), RopeScaling(
            "llama3",
            factor=float(scaling["factor"]),
            low_frequency_factor=float(scaling["low_freq_factor"]),
            high_frequency_factor=float(scaling["high_freq_factor"]),
            original_context=int(scaling["original_max_position_embeddings"]),
        )
    raise InputError(f"rope_scaling of type {kind!r} is not supported; supported are default, linear and llama3")


def _token_ids(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (int(value),)


MESH_AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; at most one axis is -1: whatever remains."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    @staticmethod
    def parse(text: str) -> "MeshConfig":
        """Reads the form of the `--mesh` flag, `data:2,tensor:4`. Axes that are not named have size 1.

        Raises:
          InputError: an unknown or double axis, a size that is no count, or more than one -1.
        """
        sizes: dict[str, int] = {}
        for part in text.split(","):
            axis, colon, size = part.strip().partition(":")
            if axis not in MESH_AXES or not colon or axis in sizes:
                raise InputError(
                    f"--mesh={text}: {part!r} is not AXIS:SIZE with one of the axes {', '.join(MESH_AXES)}, each once"
                )
            try:
                sizes[axis] = int(size)
            except ValueError as error:
                raise InputError(f"--mesh={text}: the size {size!r} is no whole number") from error
            if sizes[axis] < 1 and sizes[axis] != -1:
                raise InputError(f"--mesh={text}: the size of {axis} must be at least 1, or -1 for the remaining devices")
        if sum(size == -1 for size in sizes.values()) > 1:
            raise InputError(f"--mesh={text}: only one axis can be -1 (the remaining devices)")
        return MeshConfig(**{axis: sizes.get(axis, 1) for axis in MESH_AXES})

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """The shape of the mesh over this many devices, in the order of `MESH_AXES`.

        Raises:
          InputError: the named sizes do not divide (or make up) the devices.
        """
        known = math.prod(size for size in (self.data, self.fsdp, self.tensor) if size != -1)
        free = -1 in (self.data, self.fsdp, self.tensor)
        if devices % known if free else devices != known:
            shape = ",".join(f"{axis}:{getattr(self, axis)}" for axis in MESH_AXES)
            raise InputError(f"the mesh {shape} does not fit {devices} devices; choose sizes whose product is {devices}")
        data, fsdp, tensor = (devices // known if size == -1 else size for size in (self.data, self.fsdp, self.tensor))
        return data, fsdp, tensor


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """What is asked of a judge; each field is a flag of `judge`.

    Every field may change a verdict but `attention` and `batch_size`, which may round otherwise.
    """

    kind: str = "pair"
    mode: str = "scores"
    orders: str = "forward"
    reference: str = "auto"
    temperature: float = 0.0
    seed: int = 0
    max_new_tokens: int = 512
    on_overflow: str = "truncate"
    dtype: str = "bfloat16"
    score_grid: str = "1:10:1"
    attention: str = "auto"
    batch_size: int | None = None

    KINDS = ("pair",)
    MODES = ("scores", "explain", "distribution")
    ORDERS = ("forward", "reversed", "both")
    REFERENCES = ("auto", "none", "required")
    OVERFLOWS = ("truncate", "error", "skip")
    DTYPES = ("bfloat16", "float32")
    ATTENTIONS = ("auto", "reference", "xla", "blocked", "cudnn", "pallas", "splash")

    def __post_init__(self) -> None:
        choices = {
            "kind": self.KINDS,
            "mode": self.MODES,
            "orders": self.ORDERS,
            "reference": self.REFERENCES,
            "on_overflow": self.OVERFLOWS,
            "dtype": self.DTYPES,
            "attention": self.ATTENTIONS,
        }
        for field, values in choices.items():
            if getattr(self, field) not in values:
                raise InputError(f"{field} is {getattr(self, field)!r}; it must be one of {', '.join(values)}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature is {self.temperature}; it must be 0 (greedy) or a positive number")
        if self.mode == "distribution" and self.temperature:
            raise InputError("temperature does not go with the mode distribution, which samples nothing; leave it at 0")
        distributions.grid(self.score_grid)
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size}; it must be at least 1")
