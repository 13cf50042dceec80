"""What a run leaves: a converted checkpoint that judges, and with LoRA the adapters in PEFT's form."""

import dataclasses
from pathlib import Path
from typing import Any

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.checkpoints.peft import write_peft
from judgelm_jax.checkpoints.stacked import read_adapters
from judgelm_jax.training.setup import Run

MODEL_FOLDER = "model"
ADAPTER_FOLDER = "adapter"


def about(run: Run) -> dict[str, Any]:
    """What the metadata of each training checkpoint says, so that it can be opened as a model."""
    settings = run.program.lora
    return {
        "hf_config": run.hf_config,
        "export_dtype": run.config.checkpoints.export_dtype,
        "lora": None if settings is None else {**dataclasses.asdict(settings), "targets": list(settings.targets)},
        "init_from": None if run.checkpoint is None else str(run.checkpoint.folder.absolute()),
        "init_fingerprint": None if run.checkpoint is None else run.checkpoint.fingerprint,
    }


def export(run: Run, saved: Path, output: Path) -> None:
    """Writes `output`/model from a saved step, a layer at a time; replaces what stands there.

    Raises:
      InputError: it cannot be written.
    """
    convert(open_checkpoint(str(saved)), output / MODEL_FOLDER, "orbax", overwrite=True)
    settings = run.program.lora
    if settings is not None:
        write_peft(output / ADAPTER_FOLDER, read_adapters(saved, run.model, settings), settings, about(run)["init_from"])
