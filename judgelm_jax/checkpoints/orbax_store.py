"""Converted checkpoints: an Orbax directory with one leaf per tensor and layer, in the stored dtype.

Beside what Orbax writes stands `tokenizer/`, with the tokenizer files and what else generation needs. The metadata of
the checkpoint holds the model's `config.json` and whether its matrices are int8.
"""

import contextlib
import functools
import io
import json
import logging
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from judgelm_jax.checkpoints.folders import flush
from judgelm_jax.checkpoints.tensor_names import STORED_DTYPES, StoredTensor, Weights, grouped, tensor_table, writing_bar
from judgelm_jax.errors import InputError
from judgelm_jax.model.config import ModelConfig

T = TypeVar("T")

TOKENIZER_FOLDER = "tokenizer"

FORMAT = {"format": "judgelm_jax", "version": 1}  # in the metadata of every checkpoint of ours
_LAYOUT = "layers"
METADATA_FILE = "_CHECKPOINT_METADATA"  # what Orbax writes at the top of every checkpoint
# Tensors are saved and read in groups of this size: one small one at a time takes long, all at once the whole memory.
_GROUP_BYTES = 256 * 2**20
_READ_BYTES = 64 * 2**20
# A device that needs a slice of a tensor reads whole chunks. Of this size they divide what each of eight devices holds of a
# matrix of a 7B model, along either axis, so that nothing is read twice.
_CHUNK_BYTES = 512 * 2**10
_PENDING = "{}.pending_"  # how Orbax begins the name of a group


def is_store(folder: Path) -> bool:
    """Whether a folder is an Orbax checkpoint, ours or another's. (`ocp.is_orbax_checkpoint` is true of any folder.)"""
    return (folder / METADATA_FILE).is_file()


def custom_metadata(folder: Path) -> dict[str, Any]:
    """What the writer of an Orbax checkpoint said of it; empty where that cannot be read."""
    try:
        return quietly(functools.partial(ocp.checkpointables_metadata, folder.absolute())).custom_metadata or {}
    except OSError:
        return {}


def write_store(folder: Path, weights: Weights, config: ModelConfig, hf_config: Mapping[str, Any]) -> None:
    """Writes the tensors of the table to `folder`, which appears when all is written.

    Host memory holds one group of tensors. Orbax works in a sibling, `folder` + `.partial_save`; what a call like this one
    that was cut short left there, or at `folder`, is not written again.
    """
    context = ocp.Context()
    context.array.saving.use_compression = False  # weights hardly compress
    context.array.saving.storage_options.chunk_byte_size = _CHUNK_BYTES
    context.memory.deepcopy_host_arrays = False  # nobody changes them meanwhile
    about = {**FORMAT, "layout": _LAYOUT, "hf_config": dict(hf_config), "int8": config.int8}
    if not is_store(folder):
        with context, writing_bar(weights, config) as bar:
            saved = _saved_before(folder)
            bar.update(sum(weights.tensors[name].nbytes for name in saved))
            missing = [name for name in tensor_table(config) if name not in saved]
            for names in grouped(weights.tensors, missing, _GROUP_BYTES):
                tensors = {name: np.ascontiguousarray(tensor) for name, tensor in weights.read(names).items()}
                quietly(functools.partial(ocp.partial.save, folder, _tree(tensors), custom_metadata=about))
                bar.update(sum(tensor.nbytes for tensor in tensors.values()))
                del tensors
                flush(_groups(folder)[-1])  # so that what is found of a group after a power cut is there
            quietly(functools.partial(ocp.partial.finalize, folder))
    if StoreWeights(folder).tensors != {name: weights.tensors[name] for name in tensor_table(config)}:
        raise OSError("Orbax lost tensors on the way")


def _saved_before(folder: Path) -> set[str]:
    """The tensors that a call that was cut short has saved; the last group, which may not be on the disk, is removed."""
    place = _partial(folder)
    groups = _groups(folder)
    whole = set(groups[:-1])
    strange = [path for path in place.glob("*") if path not in groups and not path.name.startswith(_PENDING.format(place.name))]
    for path in place.glob("*"):
        if strange or path not in whole:  # strange: finalizing was cut short, and groups are mixed
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if strange:
        return set()
    names: set[str] = set()
    for group in groups[:-1]:  # by itself a group is no checkpoint that Orbax describes
        leaves = json.loads((group / "state/_METADATA").read_text(encoding="utf-8"))["tree_metadata"].values()
        names |= {_name(tuple(part["key"] for part in leaf["key_metadata"])) for leaf in leaves}
    return names


def _groups(folder: Path) -> list[Path]:
    """The groups that were saved, in their order; those that were not finished have a longer name."""
    place = _partial(folder)
    pattern = re.compile(re.escape(_PENDING.format(place.name)) + r"\d+_[0-9a-f]+")
    return sorted(path for path in place.glob("*") if pattern.fullmatch(path.name))


def _partial(folder: Path) -> Path:
    """Where Orbax collects groups that belong to a checkpoint."""
    return folder.with_name(f"{folder.name}.partial_save")


def _is_whole(path: Path) -> bool:
    """Whether a metadata file is one of Orbax, which reads a damaged one as if it held nothing."""
    try:
        return "item_handlers" in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


class StoreWeights:
    """The tensors of a converted checkpoint, by their Hugging Face names.

    Raises:
      InputError: the directory is broken, or an Orbax checkpoint of another kind.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()  # under a relative path Orbax finds nothing
        try:
            metadata = quietly(functools.partial(ocp.metadata, self._folder))
        except OSError as error:
            raise InputError(f"{folder}: a broken Orbax directory ({error}); convert it again") from error
        about = metadata.custom_metadata or {}
        if not about and not _is_whole(self._folder / METADATA_FILE):
            raise InputError(f"{folder}: a broken Orbax directory ({METADATA_FILE} is empty or damaged); take or make another")
        if not {**FORMAT, "layout": _LAYOUT}.items() <= about.items():
            raise InputError(f"{folder}: an Orbax directory, but not one that judgelm-convert wrote; convert it again")
        if not isinstance(metadata.metadata, dict):
            raise InputError(f"{folder}: a broken Orbax directory (it holds no tensors); convert it again")
        if not isinstance(about.get("hf_config"), dict):
            raise InputError(f"{folder}: a broken Orbax directory (its metadata holds no config); convert it again")
        self.hf_config: dict[str, Any] = about["hf_config"]
        self.int8 = about.get("int8") is True
        leaves = {_name(path): leaf for path, leaf in _leaves(metadata.metadata)}
        self.tensors = {name: StoredTensor(tuple(leaf.shape), leaf.dtype.name) for name, leaf in leaves.items()}

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        read: dict[str, np.ndarray] = {}
        for group in grouped(self.tensors, names, _READ_BYTES):
            wanted = {name: self.tensors[name] for name in group}
            read |= self._load({name: np.empty(stored.shape, STORED_DTYPES[stored.dtype]) for name, stored in wanted.items()})
        return read

    def arrays(self, shardings: Mapping[str, jax.sharding.Sharding]) -> dict[str, jax.Array]:
        wanted = {}
        for name, sharding in shardings.items():
            stored = self.tensors[name]
            wanted[name] = jax.ShapeDtypeStruct(stored.shape, STORED_DTYPES[stored.dtype], sharding=sharding)
        return self._load(wanted)

    def _load(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        tree = _tree({name: wanted.get(name, ocp.PLACEHOLDER) for name in self.tensors})
        try:
            loaded = dict(_leaves(quietly(functools.partial(ocp.load, self._folder, tree))))
        except OSError as error:
            raise InputError(f"{self._folder}: a broken Orbax directory ({error}); convert it again") from error
        return {name: loaded[_path(name)] for name in wanted}


def _path(name: str) -> tuple[str, ...]:
    """Where a tensor lies in the tree on disk."""
    return tuple(name.removeprefix("model.").split("."))


def _name(path: tuple[str, ...]) -> str:
    """The Hugging Face name of a leaf of the tree on disk."""
    name = ".".join(path)
    return name if path[0] == "lm_head" else f"model.{name}"


def _tree(leaves: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *above, last = _path(name)
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def _leaves(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, node in tree.items():
        found += _leaves(node, (*above, key)) if isinstance(node, dict) else [((*above, key), node)]
    return found


def quietly(call: Callable[[], T]) -> T:
    """Calls Orbax, which prints and logs every error of its threads and tasks beside the one that it raises.

    Raises:
      OSError: the first line of whatever Orbax raised; it has no exceptions of its own.
    """
    failure: str | None = None
    logger, tasks = logging.getLogger("absl"), logging.getLogger("asyncio")
    level = logger.level
    said = io.StringIO()
    logger.setLevel(logging.CRITICAL)
    tasks.addFilter(_is_no_forgotten_task)
    try:
        with contextlib.redirect_stderr(said):
            try:
                result = call()
            except jax.errors.JaxRuntimeError:  # the devices, not the directory
                raise
            except Exception as error:
                failure = str(error).strip().partition("\n")[0] or type(error).__name__
                time.sleep(0.5)  # while nobody listens, what still runs fails, too
    finally:
        logger.setLevel(level)
    if failure is not None:  # the filter stays: its tasks may report themselves at any time
        raise OSError(failure)
    tasks.removeFilter(_is_no_forgotten_task)
    sys.stderr.write(said.getvalue())
    return result


def _is_no_forgotten_task(record: logging.LogRecord) -> bool:
    """False for what asyncio says of tasks that failed beside the first."""
    return "exception was never retrieved" not in record.getMessage()
