"""Reading GGUF, the files of llama.cpp: a model of the Llama architecture with its config and tokenizer in one file, or in
several that are numbered.

Blocks of quantized numbers are unpacked by the `gguf` package, a tensor at a time. Queries and keys lie in another order there
(the two halves of a rotated pair beside each other) and are put back. Nothing in these files is trusted.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import jax
import ml_dtypes
import numpy as np

from judgelm_jax.checkpoints.tensor_names import StoredTensor, tensor_table
from judgelm_jax.devices.sharding import put
from judgelm_jax.errors import InputError
from judgelm_jax.model import rotary
from judgelm_jax.model.config import ModelConfig, RopeScaling
from judgelm_jax.records.stand_ins import refuse_stand_ins

SUFFIX = ".gguf"

_ARCHITECTURE = "llama"
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
# Types whose numbers are taken as they are, by ggml's name. All others are unpacked to float32.
_PLAIN = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
_ROPE_FACTORS = "rope_freqs.weight"
# Keys below `llama.` that were read, or say nothing of the computation. Any other may change the model: refused by name.
_KNOWN_KEYS = {
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "tensor_data_layout",
    "vocab_size",
}


@dataclasses.dataclass(frozen=True)
class _Block:
    """Where a tensor lies. `shape` is the Hugging Face one, outermost first; `offset` and `size` are bytes of `file`."""

    file: Path
    type: gguf.GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def dtype(self) -> str:
        """The dtype in which it is read."""
        return _PLAIN[self.type.name].name if self.type.name in _PLAIN else "float32"


@dataclasses.dataclass(frozen=True)
class GgufFile:
    """What one or several numbered files say of a model: `metadata` by llama.cpp's keys, blocks by its names of tensors."""

    files: list[Path]
    metadata: dict[str, Any]
    blocks: dict[str, _Block]


def find_gguf(place: Path) -> Path | None:
    """The GGUF that a path means: the file itself, or the only one of a folder (of numbered files the first).

    Raises:
      InputError: the folder holds several models.
    """
    if place.is_file():
        return place if place.suffix == SUFFIX or _begins_with_magic(place) else None
    found = sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else []
    firsts = [file for file in found if not (part := _PART.fullmatch(file.name)) or int(part[2]) == 1]
    if len(firsts) > 1:
        raise InputError(f"{place}: holds several models ({', '.join(file.name for file in firsts)}); name one of the files")
    return firsts[0] if firsts else found[0] if found else None


def read_gguf(file: Path) -> GgufFile:
    """Reads metadata and the offsets of all tensors, of numbered files those of all parts.

    Raises:
      InputError: a file is broken, cut off or missing, or of another architecture or kind than can be read.
    """
    files = _parts(file)
    metadata: dict[str, Any] = {}
    blocks: dict[str, _Block] = {}
    for number, part in enumerate(files):
        values, found = _read_part(part)
        double = sorted(blocks.keys() & found.keys())
        if double:
            raise InputError(f"{part}: repeats tensors of the parts before it ({double[0]}); fetch the files again")
        blocks |= found
        if number == 0:
            metadata = values
            _check_parts(part, metadata, len(files))
    architecture = metadata.get("general.architecture")
    if architecture != _ARCHITECTURE:
        raise InputError(f"{file}: a GGUF of the architecture {architecture!r}; only 'llama' is supported")
    expected = metadata.get("split.tensors.count")
    if len(files) > 1 and expected is not None and expected != len(blocks):
        raise InputError(f"{file}: its parts hold {len(blocks)} tensors instead of {expected}; fetch the files again")
    return GgufFile(files, metadata, blocks)


def model_config(source: GgufFile) -> ModelConfig:
    """The decoder that the metadata describes.

    Raises:
      InputError: a value is missing or wrong, or names a feature that this model does not have.
    """
    file, values = source.files[0], source.metadata

    def value(key: str, otherwise: Any = None) -> Any:
        found = values.get(f"{_ARCHITECTURE}.{key}", otherwise)
        if found is None:
            raise InputError(f"{file}: {_ARCHITECTURE}.{key} is missing; fetch another GGUF of this model")
        return found

    unknown = sorted(key for key in values if key.startswith(f"{_ARCHITECTURE}.") and key.partition(".")[2] not in _KNOWN_KEYS)
    unknown = [key for key in unknown if not _says_nothing(key, values[key])]
    if unknown:
        raise InputError(f"{file}: {unknown[0]} is {values[unknown[0]]!r}; this feature is not supported")
    try:
        heads = value("attention.head_count")
        head_dim = value("attention.key_length", value("embedding_length") // heads)
        for key in ("attention.value_length", "rope.dimension_count"):
            if value(key, head_dim) != head_dim:
                raise InputError(
                    f"{file}: {_ARCHITECTURE}.{key} is {value(key)!r} and a head has {head_dim} dimensions; other sizes are "
                    "not supported"
                )
        rows = _rows_of_embedding(source)
        if value("vocab_size", rows) != rows:
            raise InputError(
                f"{file}: {_ARCHITECTURE}.vocab_size is {value('vocab_size')!r} and token_embd.weight has {rows} rows; fetch "
                "the file again"
            )
        layers = value("block_count")
        if isinstance(layers, int) and layers > len(source.blocks):  # before anything is made for each layer
            raise InputError(f"{file}: {_ARCHITECTURE}.block_count is {layers}, more than there are tensors; fetch it again")
        config = ModelConfig(
            vocab_size=rows,
            hidden_size=value("embedding_length"),
            intermediate_size=value("feed_forward_length"),
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=value("attention.head_count_kv", heads),
            head_dim=head_dim,
            context=value("context_length"),
            norm_epsilon=_shortest(value("attention.layer_norm_rms_epsilon")),
            rope_base=_shortest(value("rope.freq_base", 10000.0)),
            rope_scaling=None,
            tied_embeddings="output.weight" not in source.blocks,
            bos_id=_token_id(source, "bos"),
            eos_ids=tuple(dict.fromkeys(i for name in ("eos", "eot") if (i := _token_id(source, name)) is not None)),
        )
        return dataclasses.replace(config, rope_scaling=_rope_scaling(source, config))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f"{file}: a value of its metadata is of the wrong type ({error}); fetch the file again") from error
    except InputError as error:
        raise error if str(error).startswith(str(file)) else InputError(f"{file}: {error}") from error


def main_dtype(source: GgufFile) -> str:
    """The dtype of the matrices as they are read; float32 where they differ."""
    dtypes = {block.dtype for block in source.blocks.values() if len(block.shape) > 1}
    return dtypes.pop() if len(dtypes) == 1 else "float32"


class GgufWeights:
    """The tensors of a GGUF by their Hugging Face names; those that have no such name keep llama.cpp's.

    Quantized tensors are read as float32, plain ones in their own dtype.

    Raises:
      InputError: a tensor is of a type that cannot be unpacked.
    """

    def __init__(self, source: GgufFile, config: ModelConfig) -> None:
        self._config = config
        self.in_one_file = len(source.files) == 1
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_layers)
        self._names = {}
        for name in tensor_table(dataclasses.replace(config, tied_embeddings=False)):
            stem = name.removesuffix(".weight")
            self._names[f"{names.get_name(stem)}.weight"] = name
        self._blocks = {self._names.get(name, name): block for name, block in source.blocks.items() if name != _ROPE_FACTORS}
        self.tensors = {name: StoredTensor(block.shape, block.dtype) for name, block in self._blocks.items()}
        for name, block in self._blocks.items():
            if not _can_unpack(block.type):
                raise InputError(f"{block.file}: {name} is of the type {block.type.name}, which cannot be unpacked")

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: self._read(name) for name in names}

    def arrays(self, shardings: Mapping[str, jax.sharding.Sharding]) -> dict[str, jax.Array]:
        return {name: put(self._read(name), sharding) for name, sharding in shardings.items()}

    def _read(self, name: str) -> np.ndarray:
        tensor = _unpacked(self._blocks[name])
        for projection, heads in (("q_proj", self._config.num_heads), ("k_proj", self._config.num_kv_heads)):
            if name.endswith(f"self_attn.{projection}.weight"):
                pairs = tensor.reshape(heads, -1, 2, tensor.shape[-1])  # [heads, pair, half, in]
                return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(tensor.shape)
        return tensor


class _CheckedReader(gguf.GGUFReader):
    """The package's reader; beyond the end of the file it would go on with nothing, for as long as a file tells it to."""

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> np.ndarray:
        if offset + int(count) * np.dtype(dtype).itemsize > len(self.data):
            raise ValueError("the file ends early")
        return super()._get(offset, dtype, count, override_order)


def _read_part(file: Path) -> tuple[dict[str, Any], dict[str, _Block]]:
    refuse_stand_ins([file])
    try:
        reader = _CheckedReader(file)
        if reader.byte_order != "I":
            raise ValueError("its numbers are in the byte order of another machine")
        values = {name: field.contents() for name, field in reader.fields.items()}
        blocks = {
            tensor.name: _Block(
                file, tensor.tensor_type, tuple(int(n) for n in reversed(tensor.shape)), tensor.data_offset, tensor.n_bytes
            )
            for tensor in reader.tensors
        }
    except OSError:
        raise
    except Exception as error:  # what the reader raises depends on where a file is broken
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{file}: a broken or cut off GGUF ({reason}); fetch the file again") from error
    return values, blocks


def _parts(file: Path) -> list[Path]:
    part = _PART.fullmatch(file.name)
    if part is None:
        return [file]
    files = [file.with_name(f"{part[1]}-{number:05d}-of-{part[3]}{SUFFIX}") for number in range(1, int(part[3]) + 1)]
    missing = [other.name for other in files if not other.is_file()]
    if missing or not files:
        raise InputError(f"{file}: these parts are missing beside it: {', '.join(missing[:10])}; fetch all of them")
    return files


def _check_parts(file: Path, metadata: Mapping[str, Any], there: int) -> None:
    told = metadata.get("split.count", 0) or 1
    if told != there or metadata.get("split.no", 0):
        raise InputError(
            f"{file}: is one of {told} parts and {there} were found by name; keep the names NAME-00001-of-{told:05d}.gguf that "
            "llama.cpp gave them"
        )


def _says_nothing(key: str, value: Any) -> bool:
    """Values that leave the computation as it is, of keys that could change it."""
    return value in ((0, 0.0, None) if "expert" in key or "scale" in key else (None,)) or (
        key == f"{_ARCHITECTURE}.attention.causal" and value is True
    )


def _rows_of_embedding(source: GgufFile) -> int:
    block = source.blocks.get("token_embd.weight")
    if block is None or len(block.shape) != 2:
        raise InputError(f"{source.files[0]}: has no token_embd.weight; name a GGUF that holds a whole model")
    return block.shape[0]


def _token_id(source: GgufFile, name: str) -> int | None:
    found = source.metadata.get(f"tokenizer.ggml.{name}_token_id")
    if found is not None and not (type(found) is int and 0 <= found < _rows_of_embedding(source)):
        raise InputError(
            f"{source.files[0]}: tokenizer.ggml.{name}_token_id is {found!r}, which is no token; fetch the file again"
        )
    return found


def _shortest(value: Any) -> float:
    """The shortest decimal number that is this float32: metadata holds 1e-5 as 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _rope_scaling(source: GgufFile, config: ModelConfig) -> RopeScaling | None:
    file, values = source.files[0], source.metadata
    kind = values.get("llama.rope.scaling.type", "none")
    factor = values.get("llama.rope.scaling.factor", values.get("llama.rope.scale_linear", 1.0))
    if kind == "none" and "llama.rope.scale_linear" in values:
        kind = "linear"
    factors = source.blocks.get(_ROPE_FACTORS)
    if kind not in ("none", "linear") or (kind == "linear" and factors is not None):
        raise InputError(f"{file}: llama.rope.scaling.type is {kind!r}; this scaling of positions is not supported")
    if kind == "linear":
        return None if factor == 1 else RopeScaling("linear", float(factor))
    if factors is None:
        return None
    stretched = _unpacked(factors).astype(np.float32).reshape(-1)
    plain = rotary.frequencies(config)
    if stretched.shape == plain.shape and np.all(stretched == 1):
        return None
    # llama.cpp writes what the four numbers of Llama 3's scaling come to. All published models share three of them.
    original = values.get("llama.rope.scaling.original_context_length", 8192)
    scaling = RopeScaling("llama3", _shortest(stretched.max(initial=1)), 1.0, 4.0, original)
    wanted = plain / rotary.frequencies(dataclasses.replace(config, rope_scaling=scaling))
    if stretched.shape != plain.shape or not np.allclose(stretched, wanted, rtol=1e-4, atol=0):
        raise InputError(f"{file}: {_ROPE_FACTORS} is not Llama 3's scaling of positions; this scaling is not supported")
    return scaling


def _unpacked(block: _Block) -> np.ndarray:
    # Not through the reader's memory map: its pages would count as ours for as long as the file is open.
    stored = np.fromfile(block.file, np.uint8, block.size, offset=block.offset)
    if stored.size != block.size:
        raise InputError(f"{block.file}: ends early; fetch the file again")
    if block.type.name in _PLAIN:
        return stored.view(_PLAIN[block.type.name]).reshape(block.shape)
    return gguf.dequantize(stored.reshape(*block.shape[:-1], -1), block.type).reshape(block.shape)


def _can_unpack(kind: gguf.GGMLQuantizationType) -> bool:
    if kind.name in _PLAIN:
        return True
    _, size = gguf.GGML_QUANT_SIZES[kind]
    try:
        return gguf.dequantize(np.zeros((1, size), np.uint8), kind).dtype == np.float32
    except NotImplementedError:
        return False


def _begins_with_magic(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"GGUF"
