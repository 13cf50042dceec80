"""Reading the weight files of a Hugging Face checkpoint: safetensors and `.bin`, single and sharded.

Nothing in these files is trusted: a `.bin` is a pickle, which is read without running what it holds, and an index may
name only files that stand beside it.
"""

import functools
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors

from judgelm_jax.checkpoints.tensor_names import DTYPES, StoredTensor
from judgelm_jax.errors import InputError
from judgelm_jax.records.stand_ins import refuse_packed, refuse_stand_ins

_FORMS = (("model", "safetensors"), ("pytorch_model", "bin"))  # stem and suffix, the first one comes first
_SAFETENSORS_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_MAPPED_BYTES = 512 * 2**20

Index = tuple[slice, ...]


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a checkpoint folder, as `transformers` chooses among them: safetensors before `.bin`.

    Raises:
      InputError: there are none, an index is broken, or a shard is missing or lies elsewhere.
    """
    for stem, suffix in _FORMS:
        single, index = folder / f"{stem}.{suffix}", folder / f"{stem}.{suffix}.index.json"
        if single.is_file():
            return [single]
        if index.is_file():
            return _indexed_files(index, suffix)
    refuse_packed(folder, [f"{stem}.{suffix}" for stem, suffix in _FORMS])
    raise InputError(
        f"{folder}: has no model.safetensors, no pytorch_model.bin and no index of shards; "
        "name the folder that holds the weights"
    )


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights of this form, or an index of them, whole or not."""
    return any((folder / f"{stem}.{suffix}{end}").is_file() for stem, suffix in _FORMS for end in ("", ".index.json"))


def open_weights(folder: Path) -> "SafetensorsWeights | TorchWeights":
    """The tensors of a checkpoint folder; reads what the files hold, but no tensor yet.

    Raises:
      InputError: as `weight_files`; a file is broken, holds more than tensors, or repeats a tensor of another.
    """
    files = weight_files(folder)
    refuse_stand_ins(files)
    return SafetensorsWeights(files) if files[0].suffix == ".safetensors" else TorchWeights(files)


class SafetensorsWeights:
    """Tensors of safetensors files. Slices are read alone, by their byte ranges."""

    def __init__(self, files: list[Path]) -> None:
        self.tensors: dict[str, StoredTensor] = {}
        self._files: dict[str, Path] = {}
        for file in files:
            try:
                with safetensors.safe_open(file, framework="numpy") as opened:
                    found = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
                    stored = {
                        name: StoredTensor(
                            tuple(tensor.get_shape()),
                            _SAFETENSORS_DTYPES.get(tensor.get_dtype(), tensor.get_dtype()),
                        )
                        for name, tensor in found.items()
                    }
            except safetensors.SafetensorError as error:
                raise InputError(f"{file}: broken or cut off ({error}); fetch the file again") from error
            _add_tensors(self.tensors, self._files, stored, file)

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        tensors = {}
        for name in names:
            # Not through the memory map: its pages would count as ours for as long as the file is open.
            with safetensors.safe_open(self._files[name], framework="numpy", backend="pread") as opened:
                tensors[name] = opened.get_tensor(name)
        return tensors

    def arrays(self, shardings: Mapping[str, jax.sharding.Sharding]) -> dict[str, jax.Array]:
        return {
            name: _place(self.tensors[name], sharding, functools.partial(self._read_slice, name))
            for name, sharding in shardings.items()
        }

    def _read_slice(self, name: str, index: Index) -> np.ndarray:
        with safetensors.safe_open(self._files[name], framework="numpy") as opened:
            return opened.get_slice(name)[index]


class TorchWeights:
    """Tensors of `.bin` files, memory-mapped where the file's form allows it; one file is open at a time, and opened anew when
    much of it was read: what was read through a map counts as memory of this process."""

    def __init__(self, files: list[Path]) -> None:
        self.tensors: dict[str, StoredTensor] = {}
        self._files: dict[str, Path] = {}
        self._opened: tuple[Path, dict[str, Any]] | None = None
        self._bytes_read = 0  # through the present map
        for file in files:
            stored = {
                name: StoredTensor(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
                for name, tensor in self._open(file).items()
            }
            _add_tensors(self.tensors, self._files, stored, file)

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: self._read_slice(name, ()) for name in names}

    def arrays(self, shardings: Mapping[str, jax.sharding.Sharding]) -> dict[str, jax.Array]:
        return {
            name: _place(self.tensors[name], sharding, functools.partial(self._read_slice, name))
            for name, sharding in shardings.items()
        }

    def _read_slice(self, name: str, index: Index) -> np.ndarray:
        import torch

        if self._bytes_read > _MAPPED_BYTES:
            self._opened = None
        tensor = self._open(self._files[name])[name].detach()[index].clone(memory_format=torch.contiguous_format)
        self._bytes_read += tensor.nbytes
        if tensor.dtype == torch.bfloat16:  # which NumPy knows by its bits only
            return tensor.view(torch.int16).numpy().view(DTYPES["bfloat16"])
        return tensor.numpy()

    def _open(self, file: Path) -> dict[str, Any]:
        if self._opened is not None and self._opened[0] == file:
            return self._opened[1]
        self._opened, self._bytes_read = None, 0
        self._opened = (file, _load_torch_file(file))
        return self._opened[1]


def _load_torch_file(file: Path) -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise InputError(f"{file}: reading .bin files needs PyTorch; pip install 'judgelm-jax[torch]'") from error
    try:
        # Files of the form before torch 1.6 are no zip archives and cannot be mapped.
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # a broken pickle can raise anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{file}: broken, or holds code beside tensors, which was not run ({reason}); "
            "fetch the file again from a source that you trust"
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided
        for name, value in content.items()
    ):
        raise InputError(f"{file}: is no table of plain tensors by name; fetch the checkpoint again")
    return content


def _place(stored: StoredTensor, sharding: jax.sharding.Sharding, read: Callable[[Index], np.ndarray]) -> jax.Array:
    """A tensor on its devices. What several devices hold alike is read once."""
    parts: dict[tuple[tuple[int | None, int | None], ...], np.ndarray] = {}

    def part(index: Index | None) -> np.ndarray:
        index = index or ()
        key = tuple((axis.start, axis.stop) for axis in index)
        if key not in parts:
            parts[key] = read(index)
        return parts[key]

    return jax.make_array_from_callback(stored.shape, sharding, part, dtype=DTYPES[stored.dtype])


def _add_tensors(
    tensors: dict[str, StoredTensor], files: dict[str, Path], found: Mapping[str, StoredTensor], file: Path
) -> None:
    double = sorted(tensors.keys() & found.keys())
    if double:
        raise InputError(f"{file}: repeats tensors of {files[double[0]].name}: {', '.join(double)}; fetch the checkpoint again")
    tensors.update(found)
    files.update(dict.fromkeys(found, file))


def _indexed_files(index: Path, suffix: str) -> list[Path]:
    """The shards that an index names, each once, in order of name."""
    refuse_stand_ins([index])
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{index}: no index of shards; fetch the checkpoint again") from error
    for name in names:
        if not isinstance(name, str) or set(name) & set("/\\\0") or not name.endswith(f".{suffix}"):
            raise InputError(
                f"{index}: the shard {name!r} is no .{suffix} file of this folder; use no checkpoint that names others"
            )
    files = [index.parent / name for name in sorted(names)]
    absent = [file.name for file in files if not file.is_file()]
    if absent or not files:
        raise InputError(
            f"{index}: {'these shards are missing: ' + ', '.join(absent) if absent else 'names no shards'}; "
            "fetch the checkpoint again"
        )
    return files
