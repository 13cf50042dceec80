"""Reading adapters in the form of PEFT (the `peft` library): which base, which pairs of matrices, with what scale.

What changes the result and is not computed here is refused by the name that it has in `adapter_config.json`.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from judgelm_jax.checkpoints.hf_reading import SafetensorsWeights, TorchWeights
from judgelm_jax.checkpoints.lora_merging import Pair
from judgelm_jax.checkpoints.peft import CONFIG_FILE, WEIGHTS_FILE
from judgelm_jax.checkpoints.tensor_names import DTYPES, tensor_table
from judgelm_jax.errors import InputError
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.records.stand_ins import refuse_packed, refuse_stand_ins
from judgelm_jax.training_config import LORA_TARGETS

TORCH_FILE = "adapter_model.bin"

_PREFIX = "base_model.model."
_TENSOR = re.compile(r"(.+)\.(lora_[AB])(?:\.default)?\.weight")
# Fields that are read here or do not matter to what a trained adapter computes. Any other must say nothing.
_READ = {"alpha_pattern", "base_model_name_or_path", "exclude_modules", "layers_to_transform", "lora_alpha", "r"}
_READ |= {"rank_pattern", "target_modules", "use_rslora"}
_HARMLESS = {"auto_mapping", "corda_config", "eva_config", "inference_mode", "loftq_config", "lora_dropout", "megatron_core"}
# PEFT itself takes no `fan_in_fan_out` for the kind of matrix that all of these are.
_HARMLESS |= {"fan_in_fan_out", "peft_version", "qalora_group_size", "revision", "runtime_config"}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),  # others change the base, too
    "layers_pattern": (None, "", [], "layers", ["layers"]),
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
}


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter on disk: its own config and its matrices; none is in memory."""

    folder: Path
    values: dict[str, Any]
    file: Path
    weights: SafetensorsWeights | TorchWeights

    @property
    def base(self) -> str | None:
        """The path or hub id of the base that it names."""
        found = self.values.get("base_model_name_or_path")
        return found if isinstance(found, str) and found else None


def read_adapter(folder: Path) -> Adapter:
    """Reads `adapter_config.json` and what the file of weights holds.

    Raises:
      InputError: one is missing or broken, or it is no LoRA adapter that can be merged.
    """
    path = folder / CONFIG_FILE
    files = [file for name in (WEIGHTS_FILE, TORCH_FILE) if (file := folder / name).is_file()]
    refuse_stand_ins([path, *files[:1]])
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); fetch the adapter again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no JSON object; fetch the adapter again")
    for field, value in values.items():
        known = field in _READ | _HARMLESS
        neutral = _NEUTRAL.get(field, (None, False, 0, "", [], {}))
        if not known and not any(type(value) is type(other) and value == other for other in neutral):
            raise InputError(f"{path}: {field} is {value!r}; this feature of adapters is not supported")
    if not files:
        refuse_packed(folder, (WEIGHTS_FILE, TORCH_FILE))
        raise InputError(f"{folder}: has no {WEIGHTS_FILE} and no {TORCH_FILE}; fetch the adapter again")
    weights = SafetensorsWeights(files[:1]) if files[0].suffix == ".safetensors" else TorchWeights(files[:1])
    return Adapter(folder, values, files[0], weights)


def pairs(adapter: Adapter, config: ModelConfig) -> dict[str, Callable[[], Pair]]:
    """Readers of the adapter's pairs, by the Hugging Face name of the weight that each is added to.

    Raises:
      InputError: its matrices are not those that its config and the model `config` of the base ask for.
    """
    path = adapter.folder / CONFIG_FILE
    shapes = {
        name.removesuffix(".weight"): spec.shape
        for name, spec in tensor_table(config).items()
        if name.endswith(".weight") and name.split(".")[-2] in LORA_TARGETS
    }
    halves: dict[str, dict[str, str]] = {}
    for name in adapter.weights.tensors:
        match = _TENSOR.fullmatch(name.removeprefix(_PREFIX))
        if match is None or not name.startswith(_PREFIX) or match[1] not in shapes:
            raise InputError(
                f"{adapter.file}: holds {name}, which is no adapter of this base; adapters of {_targets()} are supported"
            )
        halves.setdefault(match[1], {})[match[2]] = name
    try:
        wanted = {module for module in (*shapes, "lm_head", "model.embed_tokens") if _is_target(adapter.values, module)}
    except (re.error, TypeError) as error:
        raise InputError(f"{path}: target_modules or layers_to_transform cannot be read ({error}); fetch it again") from error
    different = sorted(wanted ^ halves.keys())
    if different or not halves:
        missing = not halves or different[0] in wanted
        what = different[0] if different else "all modules"
        raise InputError(
            f"{path}: {'asks for an adapter of' if missing else 'does not ask for the adapter of'} {what}, which "
            f"{adapter.file.name} {'does not hold' if missing else 'holds'}; adapters of {_targets()} are supported"
        )
    return {f"{module}.weight": _reader(adapter, module, halves[module], shapes[module]) for module in halves}


def _reader(adapter: Adapter, module: str, names: dict[str, str], shape: tuple[int, ...]) -> Callable[[], Pair]:
    if len(names) != 2:
        raise InputError(f"{adapter.file}: of the adapter of {module} one half is missing; fetch the adapter again")
    rank = _of_module(adapter, "r", "rank_pattern", module)
    alpha = _of_module(adapter, "lora_alpha", "alpha_pattern", module)
    if type(rank) is not int or rank < 1:
        raise InputError(
            f"{adapter.folder / CONFIG_FILE}: the rank of {module} is {rank!r}; it must be a whole number of at least 1"
        )
    if type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise InputError(f"{adapter.folder / CONFIG_FILE}: lora_alpha of {module} is {alpha!r}; it must be a number")
    for half, expected in (("lora_A", (rank, shape[1])), ("lora_B", (shape[0], rank))):
        stored = adapter.weights.tensors[names[half]]
        if stored.shape != expected or stored.dtype not in DTYPES:
            raise InputError(
                f"{adapter.file}: {names[half]} is {stored.dtype} {list(stored.shape)} instead of {list(expected)}; the "
                "adapter belongs to another base (name it with --base), or fetch it again"
            )
    scale = alpha / (math.sqrt(rank) if adapter.values.get("use_rslora") else rank)

    def read() -> tuple[np.ndarray, np.ndarray, float]:
        found = adapter.weights.read(list(names.values()))
        return found[names["lora_A"]], found[names["lora_B"]], scale

    return read


def _of_module(adapter: Adapter, field: str, pattern_field: str, module: str) -> Any:
    """The value of a module: that of the first pattern that ends its name, else the common one."""
    patterns = adapter.values.get(pattern_field) or {}
    try:
        for pattern, value in patterns.items():
            if re.match(rf"(.*\.)?({_safe(pattern)})$", module):
                return value
    except (re.error, AttributeError, TypeError) as error:
        raise InputError(f"{adapter.folder / CONFIG_FILE}: {pattern_field} cannot be read ({error}); fetch it again") from error
    return adapter.values.get(field, {"r": 8, "lora_alpha": 8}[field])


def _is_target(values: dict[str, Any], module: str) -> bool:
    """Whether the config asks for an adapter of a module, as PEFT decides it."""
    targets, excluded = values.get("target_modules"), values.get("exclude_modules")
    if excluded and _is_named(excluded, module):
        return False
    if targets == "all-linear":
        return module.rpartition(".")[2] in LORA_TARGETS
    if not targets or not _is_named(targets, module):
        return False
    layers = values.get("layers_to_transform")
    if layers is None or layers == [] or isinstance(targets, str) or module in targets:
        return True
    number = re.search(r"\.layers\.(\d+)\.", module)
    return number is not None and int(number[1]) in ([layers] if isinstance(layers, int) else list(layers))


def _is_named(names: str | Iterable[str], module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(_safe(names), module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _safe(pattern: str) -> str:
    """A pattern of a stranger, which must not keep `re` busy for ever: no repetition of a group, few of anything else."""
    if re.search(r"\)[*+{]", pattern) or len(re.findall(r"[*+{]", pattern)) > 4:
        raise re.error(f"the pattern {pattern[:60]!r} may take for ever")
    return pattern


def _targets() -> str:
    return ", ".join(LORA_TARGETS)
