"""Converting a checkpoint into another form. The target appears when all of it is written, or not at all."""

import json
import re
import shutil
from pathlib import Path

from judgelm_jax.checkpoints import fingerprints, orbax_store
from judgelm_jax.checkpoints.card import CARD_FILE, is_own_card, model_card
from judgelm_jax.checkpoints.folders import published
from judgelm_jax.checkpoints.hf_writing import SHARD_BYTES, write_hf
from judgelm_jax.checkpoints.opening import COMPANION_FILES, Checkpoint, is_checkpoint
from judgelm_jax.checkpoints.tensor_names import stored_bytes
from judgelm_jax.errors import InputError

# What a checkpoint consists of, beside its weights.
_OWN_FILES = {*COMPANION_FILES, "config.json", orbax_store.METADATA_FILE, "commit_success.txt", "orbax.checkpoint"}
_WEIGHTS = re.compile(
    r"(model|pytorch_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)|(model\.safetensors|pytorch_model\.bin)\.index\.json"
)


def convert(source: Checkpoint, target: Path, to: str, overwrite: bool = False, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes `source` to `target` as a converted directory (`orbax`) or a Hugging Face folder (`hf`), bit by bit.

    Host memory holds 256 MiB of tensors, or one where that is larger. Work is done in a hidden folder beside the target; where
    a killed conversion of the same left files that are complete, the next one goes on after them, and any other removes them.

    Raises:
      InputError: the target exists and may not be replaced, lies in the source, or could not be written; or the source has int8
        weights, which `hf` does not.
    """
    target = target.absolute()
    if source.config.int8 and to == "hf":
        raise InputError(
            f"{source.folder}: has int8 weights with a scale for each row, which --to=hf does not write; export the checkpoint "
            "that they were made of"
        )
    _check_target(source, target, to, overwrite)
    identity = fingerprints.of_parts(
        fingerprints.state_of(source.files),
        json.dumps(source.hf_config, sort_keys=True),
        to,
        str(shard_bytes),
        f"int8 {source.config.int8}",
    )
    with published(target, stored_bytes(source.weights, source.config), identity) as folder:
        _check_target(source, target, to, overwrite)  # again: another one may have written it meanwhile
        if to == "orbax":
            orbax_store.write_store(folder, source.weights, source.config, source.hf_config)
            companions = folder / orbax_store.TOKENIZER_FOLDER
        else:
            companions = folder
            folder.mkdir(exist_ok=True)
            write_hf(folder, source.weights, source.config, source.hf_config, shard_bytes)
        companions.mkdir(exist_ok=True)
        for file in source.companions():
            shutil.copyfile(file, companions / file.name)
        _write_card(source, target.name, folder, to)


def _write_card(source: Checkpoint, name: str, folder: Path, to: str) -> None:
    """Beside what other people get: an export to other programs, or what a training run made."""
    if is_own_card(source.folder / CARD_FILE):
        shutil.copyfile(source.folder / CARD_FILE, folder / CARD_FILE)
    elif to == "hf" or source.training is not None:
        card = model_card(name, source.folder.name, source.hf_config, source.training)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")


def _check_target(source: Checkpoint, target: Path, to: str, overwrite: bool) -> None:
    origin, place = source.folder.resolve(), target.resolve()
    if origin == place or origin in place.parents or place in origin.parents:
        raise InputError(f"{target}: the source {source.folder} lies there; choose a target outside of it")
    if to == "orbax" and set(str(target)) & set("*?["):
        raise InputError(f"{target}: Orbax cannot write to a path with *, ? or [ in it; choose another target")
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise InputError(f"{target}: exists already; choose another target or pass --overwrite")
    if not target.is_dir() or target.is_symlink() or not (is_checkpoint(target) or not any(target.iterdir())):
        raise InputError(f"{target}: is no checkpoint, so it is not overwritten; choose another target")
    others = sorted(path.name for path in target.iterdir() if not _is_of_a_checkpoint(path))
    if others:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise InputError(
            f"{target}: holds more than a checkpoint ({shown}), so it is not overwritten; move that elsewhere first"
        )


def _is_of_a_checkpoint(path: Path) -> bool:
    """Whether a file or folder of a checkpoint may go when the checkpoint is replaced by another."""
    if path.is_dir() and not path.is_symlink():
        inside = {orbax_store.TOKENIZER_FOLDER: set(COMPANION_FILES)}.get(path.name)
        return path.name == "state" or (inside is not None and {file.name for file in path.iterdir()} <= inside)
    return path.name in _OWN_FILES or _WEIGHTS.fullmatch(path.name) is not None or is_own_card(path)
