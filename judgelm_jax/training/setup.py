"""Everything that is known, and can be wrong, before the first step: files, shapes, the plan of the run."""

import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from judgelm_jax.checkpoints import Checkpoint, open_checkpoint
from judgelm_jax.data.held_out import sample
from judgelm_jax.data.pipeline import Plan, plan
from judgelm_jax.data.training_file import TrainingFile, check_training_file
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.errors import InputError
from judgelm_jax.model import config_json
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.tokens.tokenization import TOKENIZER_FILES, Tokenizer, load_tokenizer
from judgelm_jax.training.identity import identity_of
from judgelm_jax.training.programs import make_program
from judgelm_jax.training.step import Program
from judgelm_jax.training_config import DataConfig, ModelShape, RecipeConfig, TrainConfig, check

_WORTH_A_LINE = 0.1  # share of a training file that is left out


@dataclasses.dataclass(frozen=True)
class Sources:
    """What a run is made of. `init_from`: a checkpoint; None: random weights, and `tokenizer` names a folder with one.

    `insisted`: the fields of `config.model` that the checkpoint must have; the others are what it has. `device_memory`: GiB
    that a device may use; None: what it has.
    """

    data: Path
    evaluation: Path | None
    init_from: str | None
    tokenizer: Path | None
    insisted: frozenset[str] = frozenset()
    device_memory: float | None = None


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The held-out records that are measured, and the plan of their batches: a record a row, as it is in the file."""

    file: TrainingFile
    plan: Plan
    data: DataConfig
    recipe: RecipeConfig


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that may begin: all of its input was checked."""

    config: TrainConfig
    sources: Sources
    checkpoint: Checkpoint | None
    model: ModelConfig
    tokenizer: Tokenizer
    tokenizer_folder: Path
    eos_id: int
    file: TrainingFile
    held_out: HeldOut | None
    plan: Plan
    mesh: Mesh
    program: Program
    identity: dict[str, Any]  # what a resumed run must have in common with its beginning

    @property
    def hf_config(self) -> dict[str, Any]:
        """The `config.json` of what is trained."""
        return config_json.to_hf(self.model, "float32") if self.checkpoint is None else self.checkpoint.hf_config


def check_sources(config: TrainConfig, sources: Sources) -> tuple[TrainingFile, TrainingFile | None]:
    """Reads the files once, without JAX devices, and refuses what is wrong in them or in the config.

    Raises:
      InputError: names the file and line, or the field.
    """
    check(config, own_shape=sources.init_from is None)
    if (sources.init_from is None) == (sources.tokenizer is None):
        raise InputError("give either --init_from (a checkpoint to go on from) or --tokenizer (to train from random weights)")
    if config.lora.rank and sources.init_from is None:
        raise InputError(f"--config.lora.rank={config.lora.rank}: adapters need a trained model; give --init_from")
    held_out = None
    if sources.evaluation is not None:
        held_out = check_training_file(sources.evaluation)
        held_out = sample(held_out, config.evaluation.records, config.training.seed)
    file = check_training_file(sources.data)
    if held_out is not None and held_out.sha256 == file.sha256:
        raise InputError(f"{sources.evaluation}: is the training file; hold other rows out")
    return file, held_out


def prepare(config: TrainConfig, sources: Sources, file: TrainingFile, held_out: TrainingFile | None) -> Run:
    """Plans the run: which rows in which step, on which mesh, with which model.

    Raises:
      InputError: the checkpoint is another model than was insisted on, or something does not divide.
    """
    mesh = make_mesh(MeshConfig.parse(config.computation.mesh))
    checkpoint = None if sources.init_from is None else open_checkpoint(sources.init_from)
    if checkpoint is None:
        assert sources.tokenizer is not None
        folder, place = sources.tokenizer, sources.tokenizer
        tokenizer = load_tokenizer(folder)
        model = _model(config, tokenizer)
    else:
        folder, place = checkpoint.tokenizer_folder, checkpoint.folder
        tokenizer = checkpoint.required_tokenizer()
        config, model = _with_shape_of(checkpoint, config, sources), checkpoint.config
    if not model.eos_ids:
        raise InputError(f"{place}: names no end-of-sequence token, which every target ends with; name it in its config")
    eos_id = model.eos_ids[0]
    # Before the data is measured, which takes long: the mesh, the attention backend and the batch fit.
    make_program(config, model, mesh, steps=1)
    planned = plan(file, tokenizer, eos_id, config.data, config.training)
    measured = None if held_out is None else _plan_held_out(held_out, tokenizer, eos_id, config)
    program = make_program(config, model, mesh, planned.steps)
    facts = {
        "data_sha256": file.sha256,
        "evaluation_sha256": None if held_out is None else held_out.sha256,
        "init_fingerprint": None if checkpoint is None else checkpoint.fingerprint,
        "tokenizer_sha256": _digest(folder),
        "steps": planned.steps,
    }
    return Run(
        config=config,
        sources=sources,
        checkpoint=checkpoint,
        model=model,
        tokenizer=tokenizer,
        tokenizer_folder=folder,
        eos_id=eos_id,
        file=file,
        held_out=measured,
        plan=planned,
        mesh=mesh,
        program=program,
        identity=identity_of(config, facts),
    )


def _plan_held_out(file: TrainingFile, tokenizer: Tokenizer, eos_id: int, config: TrainConfig) -> HeldOut:
    """Raises an `InputError` where a record does not fit and may not be shortened."""
    data = dataclasses.replace(config.data, swap_augmentation=0.0, reference_drop=0.0, packing=False)
    recipe = RecipeConfig(epochs=1, batch=config.training.batch, seed=config.training.seed)
    return HeldOut(file, plan(file, tokenizer, eos_id, data, recipe), data, recipe)


def warn_of_what_is_left_out(planned: Plan, config: TrainConfig) -> None:
    """A line on stderr where much of the training file teaches nothing."""
    failed, too_long, total = planned.left_out()
    if failed + too_long <= _WORTH_A_LINE * total or jax.process_index() != 0:
        return
    print(
        f"judgelm-train: {planned.file.path}: {100 * (failed + too_long) / total:.0f} % of {total} records are left out: the "
        f"teacher failed in {failed}, and {too_long} do not fit --config.data.length={config.data.length}",
        file=sys.stderr,
    )


def _model(config: TrainConfig, tokenizer: Tokenizer) -> ModelConfig:
    shape = config.model
    if shape.hidden_size % shape.num_heads:
        raise InputError(
            f"--config.model.num_heads={shape.num_heads}: does not divide the hidden_size {shape.hidden_size}; choose a divisor"
        )
    return shape.with_vocabulary(tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_ids)


def _with_shape_of(checkpoint: Checkpoint, config: TrainConfig, sources: Sources) -> TrainConfig:
    """The config with the shape of the checkpoint."""
    shape = ModelShape(**{field.name: getattr(checkpoint.config, field.name) for field in dataclasses.fields(ModelShape)})
    for name in sorted(sources.insisted):
        wanted, there = getattr(config.model, name), getattr(shape, name)
        if wanted != there:
            raise InputError(
                f"--config.model.{name}={wanted}: {sources.init_from} has {there}; leave it out, its shape is taken"
            )
    if config.data.length > shape.context:
        raise InputError(
            f"--config.data.length={config.data.length}: the context of {sources.init_from} is {shape.context}; choose a "
            "smaller length"
        )
    config = dataclasses.replace(config, model=shape)
    check(config)
    return config


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            digest.update(name.encode() + (folder / name).read_bytes())
    return digest.hexdigest()
