"""A model by its name: a converted directory, a Hugging Face directory, or a hub id."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from judgelm_jax.checkpoints import hf_reading, orbax_store, training_run, training_weights
from judgelm_jax.checkpoints.onto_devices import Params, load_params
from judgelm_jax.checkpoints.tensors import Weights, check_weights
from judgelm_jax.errors import InputError
from judgelm_jax.model import families
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.tokenization import TOKENIZER_FILES
from judgelm_jax.training_config import LoraConfig

# Beside the tokenizer, what generation with this checkpoint elsewhere needs.
COMPANION_FILES = (*TOKENIZER_FILES, "generation_config.json", "chat_template.jinja")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_EDGE_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose config and list of tensors were read and fit each other; no tensor is in memory yet.

    `config.eos_ids` are those of `generation_config.json` where there is one, as in `transformers`. `hf_config` is the
    content of its `config.json`; `fingerprint` tells it from other checkpoints.
    """

    folder: Path
    config: ModelConfig
    hf_config: dict[str, Any]
    tokenizer_folder: Path
    fingerprint: str
    weights: Weights

    def load(self, shardings: Params | None, dtype: Any) -> Params:
        """The stacked parameters `{"layers": {..: [L, out, in]}, ..}` in `dtype`, placed; see `load_params`."""
        return load_params(self.weights, self.config, shardings, dtype)

    def companions(self) -> list[Path]:
        """The tokenizer's files and what else goes along when the checkpoint is converted."""
        return _existing(self.tokenizer_folder, COMPANION_FILES)


def open_checkpoint(model: str) -> Checkpoint:
    """Opens a converted directory, a training checkpoint, a Hugging Face directory, or a hub id, which is downloaded first.

    Raises:
      InputError: there is no such model, its config is not supported, or its tensors do not fit its config.
    """
    if not model:
        raise InputError("no model is named; give a converted or a Hugging Face folder, or a hub id like ORG/NAME")
    folder = Path(model)
    if not folder.exists() and _HUB_ID.fullmatch(model):
        folder = _download(model)
    if not folder.is_dir():
        raise InputError(f"{model}: no such folder; name a converted or a Hugging Face folder, or a hub id like ORG/NAME")
    if not orbax_store.is_store(folder):
        checkpoint = _open_hf(folder)
    elif (about := orbax_store.custom_metadata(folder)).get("layout") == training_run.LAYOUT:
        checkpoint = _open_training(folder, about)
    else:
        checkpoint = _open_store(folder)
    check_weights(folder, checkpoint.weights, checkpoint.config)
    return dataclasses.replace(checkpoint, config=_with_generation_ends(checkpoint.config, checkpoint.tokenizer_folder))


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds what `open_checkpoint` opens: an Orbax checkpoint, or a config and weights."""
    if orbax_store.is_store(folder):
        return True
    try:
        return (folder / "config.json").is_file() and bool(hf_reading.weight_files(folder))
    except InputError:
        return False


def _open_store(folder: Path) -> Checkpoint:
    weights = orbax_store.StoreWeights(folder)
    tokenizer_folder = folder / orbax_store.TOKENIZER_FOLDER
    try:
        config = families.from_hf(weights.hf_config)
    except InputError as error:
        raise InputError(f"{folder}: its config is not supported: {error}") from error
    digest = hashlib.sha256(weights.fingerprint.encode())
    _add_edges(digest, _existing(tokenizer_folder, TOKENIZER_FILES))
    return Checkpoint(folder, config, weights.hf_config, tokenizer_folder, digest.hexdigest(), weights)


def _open_training(folder: Path, about: dict[str, Any]) -> Checkpoint:
    """`RUN/checkpoints/STEP`; adapters are merged into the checkpoint from which the run started."""
    config = families.from_hf(about["hf_config"])
    tokenizer_folder = folder.absolute().parent.parent / orbax_store.TOKENIZER_FOLDER
    if about["lora"] is None:
        weights: Weights = training_weights.StackedWeights(folder, config, about["export_dtype"])
    else:
        base = open_checkpoint(about["init_from"])
        if base.fingerprint != about["init_fingerprint"]:
            raise InputError(f"{folder}: its adapters belong to {about['init_from']}, which has changed since; restore that")
        weights = training_weights.MergedWeights(base.weights, folder, config, LoraConfig(**about["lora"]))
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    _add_edges(digest, [folder / orbax_store.METADATA_FILE, *_existing(tokenizer_folder, TOKENIZER_FILES)])
    return Checkpoint(folder, config, about["hf_config"], tokenizer_folder, digest.hexdigest(), weights)


def _open_hf(folder: Path) -> Checkpoint:
    config, hf_config = families.read_hf_config(folder / "config.json")
    files = hf_reading.weight_files(folder)
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    _add_edges(digest, [*files, *_existing(folder, TOKENIZER_FILES)])
    return Checkpoint(folder, config, hf_config, folder, digest.hexdigest(), hf_reading.open_weights(folder))


def _with_generation_ends(config: ModelConfig, folder: Path) -> ModelConfig:
    path = folder / "generation_config.json"
    if not path.is_file():
        return config
    try:
        ends = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
        ends = [ends] if isinstance(ends, int) else ends or []
        if not all(type(end) is int for end in ends):
            raise ValueError("eos_token_id is neither a number nor a list of numbers")
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); fetch the checkpoint again") from error
    return dataclasses.replace(config, eos_ids=tuple(ends)) if ends else config


def _existing(folder: Path, names: Iterable[str]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def _add_edges(digest: Any, files: Iterable[Path]) -> None:
    """Adds names, sizes and both ends of files: tells checkpoints apart without reading them whole."""
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(_EDGE_BYTES))
            opened.seek(max(size - _EDGE_BYTES, 0))
            digest.update(opened.read(_EDGE_BYTES))


def _download(model: str) -> Path:
    """The local copy of a hub repository: its config, tokenizer and weights, as safetensors where it has them."""
    import huggingface_hub

    def fetch(*patterns: str) -> Path:
        # A pattern matches across folders, too; what lies in subfolders is another form of the same weights.
        return Path(huggingface_hub.snapshot_download(model, allow_patterns=list(patterns), ignore_patterns=["*/*"]))

    try:
        folder = fetch("*.json", "tokenizer.model", "*.jinja", "model*.safetensors")
        if not any(folder.glob("*.safetensors")):
            folder = fetch("pytorch_model*.bin")
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{model}: no such folder here, and no download from the hub ({reason}); "
            "check the name and the network, or name a folder"
        ) from error
    return folder
