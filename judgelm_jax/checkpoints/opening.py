"""A model by its name: a converted directory, a Hugging Face directory, a GGUF, an adapter, or a hub id."""

import dataclasses
import errno
import functools
import json
import re
import tempfile
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from judgelm_jax.checkpoints import fingerprints, gguf_reading, hf_reading, orbax_store, training_run, training_weights
from judgelm_jax.checkpoints.end_tokens import GENERATION_FILE, ends_of
from judgelm_jax.checkpoints.gguf_tokenizer import write_tokenizer
from judgelm_jax.checkpoints.lora_merging import MergedWeights
from judgelm_jax.checkpoints.onto_devices import Params, load_params, load_unstacked
from judgelm_jax.checkpoints.peft import CONFIG_FILE
from judgelm_jax.checkpoints.peft_reading import pairs as adapter_pairs
from judgelm_jax.checkpoints.peft_reading import read_adapter
from judgelm_jax.checkpoints.tensor_names import Weights, check_weights
from judgelm_jax.errors import InputError
from judgelm_jax.model import config_json
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.notices import say_once
from judgelm_jax.records.stand_ins import refuse_packed, refuse_stand_ins
from judgelm_jax.tokens.chat_template import TEMPLATE_FILE
from judgelm_jax.tokens.tokenization import TOKENIZER_FILES, VOCABULARY_FILES, Tokenizer, check_fits, load_tokenizer
from judgelm_jax.training_config import LoraConfig

# Beside the tokenizer, what generation with this checkpoint elsewhere needs.
GENERATION_FILES = (GENERATION_FILE, TEMPLATE_FILE)
COMPANION_FILES = (*TOKENIZER_FILES, *GENERATION_FILES)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# In the folder of a training, as `training.identity` names them, which only commands import.
_RUN_FILE, _CHECKPOINTS, _MODEL = "run.json", "checkpoints", "model"
_NOT_ENDED = "the training has not ended: go on with it, or name a checkpoint in {}"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose config and list of tensors were read and fit each other; no tensor is in memory yet.

    `config.eos_ids` are those that `ends.ends_of` finds, that of the tokenizer first; where there is a tokenizer, it fits the
    model. `hf_config` is the content of its `config.json`. `folder` is what was named, a file where that is a GGUF, whose
    `tokenizer_folder` is a temporary one. `digest` computes what `fingerprint` gives, of the content of `files`.
    """

    folder: Path
    config: ModelConfig
    hf_config: dict[str, Any]
    tokenizer_folder: Path
    digest: Callable[[], str]
    files: tuple[Path, ...]
    weights: Weights
    base_tokenizer_folder: Path | None = None  # of an adapter that brings a tokenizer of its own
    training: dict[str, Any] | None = None  # of a training checkpoint: what is known of its run
    tokenizer: Tokenizer | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Tells it from all other checkpoints: a digest of every byte of it. Reads them all where they are not known yet."""
        return self.digest()

    def required_tokenizer(self) -> Tokenizer:
        """Its tokenizer.

        Raises:
          InputError: it has none.
        """
        if self.tokenizer is None and self.folder.is_file():
            raise InputError(f"{self.folder}: holds no tokenizer (tokenizer.ggml.model); name a GGUF that has one")
        return self.tokenizer or load_tokenizer(self.tokenizer_folder)

    def load(self, shardings: Params | None, dtype: Any) -> Params:
        """The stacked parameters `{"layers": {..: [L, out, in]}, ..}` in `dtype`, placed; see `load_params`."""
        return load_params(self.weights, self.config, shardings, dtype)

    def load_unstacked(self, shardings: Params, dtype: Any) -> Params:
        """The parameters with a list of layers; see `onto_devices.load_unstacked`."""
        return load_unstacked(self.weights, self.config, shardings, dtype)

    def companions(self) -> list[Path]:
        """The tokenizer's files and what else goes along when the checkpoint is converted."""
        found = _existing(self.tokenizer_folder, COMPANION_FILES)
        if self.base_tokenizer_folder is not None:
            there = {file.name for file in found}
            found += [f for f in _existing(self.base_tokenizer_folder, GENERATION_FILES) if f.name not in there]
        return found


def open_checkpoint(model: str, base: str | None = None, context: int | None = None) -> Checkpoint:
    """Opens a converted directory, a training checkpoint, a Hugging Face directory, a GGUF, a PEFT adapter, or a hub id, which
    is downloaded first.

    Args:
      base: what an adapter is merged into, in place of the base that it names.
      context: the longest sequence in tokens, instead of the one that its config states.

    Raises:
      InputError: there is no such model, its config is not supported, or its tensors or its tokenizer do not fit its
        config.
    """
    if not model:
        raise InputError("no model is named; give a converted or a Hugging Face folder, or a hub id like ORG/NAME")
    place = Path(model)
    if not place.exists() and _HUB_ID.fullmatch(model):
        place = _download(model)
    if not place.exists() and _is_of_training(place.parent):
        raise InputError(f"{model}: no such folder; {_NOT_ENDED.format(place.parent / _CHECKPOINTS)}")
    if not place.exists():
        raise InputError(f"{model}: no such folder; name a converted or a Hugging Face folder, or a hub id like ORG/NAME")
    if (place / CONFIG_FILE).is_file() and (base is not None or not _is_whole(place)):
        checkpoint = _open_adapter(place, base)
    elif base is not None:
        raise InputError(f"--base={base}: {model} is no adapter (it has no {CONFIG_FILE}), so it has no base; leave --base out")
    else:
        checkpoint = _open_whole(place)
        check_weights(place, checkpoint.weights, checkpoint.config)
    return _with_tokenizer(_with_context(checkpoint, context))


def _with_context(checkpoint: Checkpoint, context: int | None) -> Checkpoint:
    """A checkpoint whose config states another context; another context is another model."""
    if context is None:
        if guess := config_json.guessed_context(checkpoint.hf_config):
            say_once(f"{checkpoint.folder}: {guess}; pass --context=N where that is wrong")
        return checkpoint
    return dataclasses.replace(
        checkpoint,
        config=dataclasses.replace(checkpoint.config, context=context),
        hf_config=config_json.with_context(checkpoint.hf_config, context),
        digest=lambda: fingerprints.of_parts(checkpoint.fingerprint, f"context {context}"),
    )


def _with_tokenizer(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint whose tokenizer, where it has one, fits the model, and whose ends are those of all its files together."""
    tokenizer, folder, config = checkpoint.tokenizer, checkpoint.tokenizer_folder, checkpoint.config
    try:
        if tokenizer is None and _existing(folder, VOCABULARY_FILES):
            tokenizer = load_tokenizer(folder)
        if tokenizer is not None:
            check_fits(tokenizer, config.vocab_size, checkpoint.folder)
        ends = ends_of(config, checkpoint.hf_config, folder, tokenizer)
    except InputError as error:
        if not checkpoint.folder.is_file():
            raise
        # Of a GGUF, whose tokenizer lies in a folder that goes away.
        line = str(error).replace(f"{folder}/", f"{checkpoint.folder}: its ").replace(str(folder), str(checkpoint.folder))
        raise InputError(line) from error
    return dataclasses.replace(checkpoint, config=dataclasses.replace(config, eos_ids=ends), tokenizer=tokenizer)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a whole model that may be replaced by another: an Orbax checkpoint, or a config and weights."""
    if orbax_store.is_store(folder):
        return True
    try:
        return (folder / "config.json").is_file() and bool(hf_reading.weight_files(folder))
    except InputError:
        return False


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds the weights of a whole model, broken or not."""
    return orbax_store.is_store(folder) or hf_reading.has_weights(folder)


def _open_whole(place: Path) -> Checkpoint:
    if place.is_dir() and orbax_store.is_store(place):
        about = orbax_store.custom_metadata(place)
        return _open_training(place, about) if about.get("layout") == training_run.LAYOUT else _open_store(place)
    if (place / _MODEL / training_run.STATE).is_dir():
        raise InputError(f"{place}: is the folder of a training; its model is {place / _MODEL}")
    if _is_of_training(place):
        raise InputError(f"{place}: is the folder of a training; {_NOT_ENDED.format(place / _CHECKPOINTS)}")
    if (place / training_run.STATE).is_dir() and not (place / "config.json").exists():
        missing = orbax_store.METADATA_FILE
        raise InputError(f"{place}: a broken Orbax directory ({missing} is missing); take or make another")
    if place.is_file() or (place.is_dir() and not hf_reading.has_weights(place)):
        refuse_stand_ins([place])
        file = gguf_reading.find_gguf(place)
        if file is not None:
            return _open_gguf(file)
    if not place.is_dir():
        raise InputError(f"{place}: is neither a folder nor a GGUF; name the folder of the checkpoint, or a file NAME.gguf")
    return _open_hf(place)


def _is_of_training(folder: Path) -> bool:
    """Whether a training writes there; a model may lie beside a file of that name."""
    return (folder / _RUN_FILE).is_file() and not (folder / "config.json").exists()


def _open_store(folder: Path) -> Checkpoint:
    weights = orbax_store.StoreWeights(folder)
    tokenizer_folder = folder / orbax_store.TOKENIZER_FOLDER
    tokenizer_files = _existing(tokenizer_folder, TOKENIZER_FILES)
    refuse_stand_ins(tokenizer_files)
    try:
        config = dataclasses.replace(config_json.from_hf(weights.hf_config), int8=weights.int8)
    except InputError as error:
        raise InputError(f"{folder}: its config is not supported: {error}") from error

    files = [file for file in fingerprints.files_below(folder) if tokenizer_folder not in file.parents]

    def digest() -> str:
        return fingerprints.of_parts(
            json.dumps(weights.hf_config, sort_keys=True),
            fingerprints.of_tensors(weights, files),
            fingerprints.of_files(tokenizer_folder, tokenizer_files),
        )

    return Checkpoint(folder, config, weights.hf_config, tokenizer_folder, digest, (*files, *tokenizer_files), weights)


def _open_training(folder: Path, about: dict[str, Any]) -> Checkpoint:
    """`RUN/checkpoints/STEP`; adapters are merged into the checkpoint from which the run started."""
    missing = [field for field in ("hf_config", "export_dtype", "lora", "init_from", "init_fingerprint") if field not in about]
    if missing:
        raise InputError(f"{folder}: a broken training checkpoint (its metadata has no {missing[0]}); take another")
    config = config_json.from_hf(about["hf_config"])
    tokenizer_folder = folder.absolute().parent.parent / orbax_store.TOKENIZER_FOLDER
    tokenizer_files = _existing(tokenizer_folder, TOKENIZER_FILES)
    if about["lora"] is None:
        weights: Weights = training_weights.StackedWeights(folder, config, about["export_dtype"])
        base_files: tuple[Path, ...] = ()
    else:
        base = open_checkpoint(about["init_from"])
        base_files = base.files
        if base.fingerprint != about["init_fingerprint"]:
            raise InputError(f"{folder}: its adapters belong to {about['init_from']}, which has changed since; restore that")
        pairs = training_weights.saved_pairs(folder, config, LoraConfig(**about["lora"]))
        weights = MergedWeights(base.weights, pairs)
    own_files = list(fingerprints.files_below(folder))

    def digest() -> str:
        return fingerprints.of_parts(
            json.dumps(about, sort_keys=True),
            fingerprints.of_files(folder, own_files),
            fingerprints.of_files(tokenizer_folder, tokenizer_files),
        )

    training, files = _told_of_run(folder, about), (*own_files, *tokenizer_files, *base_files)
    return Checkpoint(folder, config, about["hf_config"], tokenizer_folder, digest, files, weights, training=training)


def _told_of_run(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """For the model card: the step, why it was chosen, what the run started from, and the run's own file with its data and
    recipe."""
    told = {name: about.get(name) for name in ("init_from", "init_fingerprint", "lora", "export_dtype")}
    try:
        run = json.loads((folder.absolute().parent.parent / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        run = None
    choice = about.get("choice")
    if choice is not None and str(choice["step"]) == folder.name:
        told |= {"chosen_for": choice["reason"], "held_out": choice["figures"]}
    return told | {"step": folder.name} | ({"run": run} if isinstance(run, dict) else {})


def _open_hf(folder: Path) -> Checkpoint:
    refuse_packed(folder, ["config.json"])
    refuse_stand_ins([folder / "config.json", *_existing(folder, COMPANION_FILES)])
    config, hf_config = config_json.read_hf_config(folder / "config.json")
    files = [folder / "config.json", *hf_reading.weight_files(folder), *_existing(folder, TOKENIZER_FILES)]
    if (folder / CONFIG_FILE).is_file():
        say_once(
            f"{folder}: holds a PEFT adapter ({CONFIG_FILE}) beside whole weights, and it is not applied (transformers would); "
            f"to apply it to them pass --base={folder}"
        )

    def digest() -> str:
        return fingerprints.of_files(folder, files)

    return Checkpoint(folder, config, hf_config, folder, digest, tuple(files), hf_reading.open_weights(folder))


def _open_gguf(file: Path) -> Checkpoint:
    source = gguf_reading.read_gguf(file)
    config = gguf_reading.model_config(source)
    weights = gguf_reading.GgufWeights(source, config)
    made = tempfile.TemporaryDirectory(prefix="judgelm-tokenizer-")
    weakref.finalize(weights, made.cleanup)  # the files are needed as long as the weights, or until the program ends
    write_tokenizer(file, source.metadata, Path(made.name))

    def digest() -> str:
        return fingerprints.of_files(file.parent, source.files)

    hf_config = config_json.to_hf(config, gguf_reading.main_dtype(source))
    config = config_json.from_hf(hf_config)
    return Checkpoint(file, config, hf_config, Path(made.name), digest, tuple(source.files), weights)


def _open_adapter(folder: Path, base: str | None) -> Checkpoint:
    """An adapter merged into its base. Its own tokenizer comes before that of the base."""
    adapter = read_adapter(folder)
    named = base or adapter.base
    if named is None:
        raise InputError(f"{folder / CONFIG_FILE}: names no base; name it with --base, or as base_model_name_or_path there")
    if base is None and (folder / named).exists():
        named = str(folder / named)
    if not Path(named).exists() and (Path(named).is_absolute() or not _HUB_ID.fullmatch(named)):
        raise InputError(
            f"{folder}: is an adapter of {named}, which is not there; name its base with --base, or correct "
            f"base_model_name_or_path in its {CONFIG_FILE}"
        )
    if not Path(named).exists() and adapter.values.get("revision") not in (None, "main"):
        raise InputError(
            f"{folder}: is an adapter of {named} at the revision {adapter.values['revision']}; download that and name it with "
            "--base"
        )
    if (Path(named) / CONFIG_FILE).is_file() and not _is_whole(Path(named)):
        raise InputError(f"{folder}: {named} is an adapter, too; name the base that both belong to with --base")
    try:
        opened = open_checkpoint(named)
    except InputError as error:
        raise InputError(f"{folder}: its base cannot be opened: {error}; another one is named with --base") from error
    if opened.config.int8:
        raise InputError(
            f"{folder}: its base {named} has int8 weights, which adapters cannot be merged into; name the base as it was"
        )
    tokenizer_files = _existing(folder, TOKENIZER_FILES)
    refuse_stand_ins(tokenizer_files)
    own = any(file.name in VOCABULARY_FILES for file in tokenizer_files)
    weights = MergedWeights(opened.weights, adapter_pairs(adapter, opened.config))

    files = [folder / CONFIG_FILE, adapter.file, *(tokenizer_files if own else [])]

    def digest() -> str:
        return fingerprints.of_parts(opened.fingerprint, fingerprints.of_files(folder, files))

    return Checkpoint(
        folder,
        opened.config,
        opened.hf_config,
        folder if own else opened.tokenizer_folder,
        digest,
        (*files, *opened.files),
        weights,
        opened.tokenizer_folder if own else None,
        tokenizer=None if own else opened.tokenizer,
    )


def _existing(folder: Path, names: Iterable[str]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def _download(model: str) -> Path:
    """The local copy of a hub repository: its config, tokenizer and weights, as safetensors where it has them."""
    import huggingface_hub

    def fetch(*patterns: str) -> Path:
        # A pattern matches across folders, too; what lies in subfolders is another form of the same weights.
        return Path(huggingface_hub.snapshot_download(model, allow_patterns=list(patterns), ignore_patterns=["*/*"]))

    try:
        folder = fetch("*.json", "tokenizer.model", "*.jinja", "model*.safetensors", "adapter_model.safetensors")
        if not any(folder.glob("*.safetensors")):
            folder = fetch("pytorch_model*.bin", "adapter_model.bin")
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"{model}: the hub's cache cannot keep it ({reason}); make room there, or set HF_HOME to a folder that can be "
                "written"
            ) from error
        raise InputError(
            f"{model}: no such folder here, and no download from the hub ({reason}); "
            "check the name and the network, or name a folder"
        ) from error
    return folder
