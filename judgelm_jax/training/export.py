"""What a run leaves: a converted checkpoint that judges, and with LoRA the adapters in PEFT's form."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.checkpoints.peft import write_peft
from judgelm_jax.checkpoints.training_weights import read_adapters
from judgelm_jax.errors import InputError
from judgelm_jax.training.identity import ADAPTER_FOLDER, MODEL_FOLDER
from judgelm_jax.training.setup import Run


def about(run: Run) -> dict[str, Any]:
    """What the metadata of each training checkpoint says, so that it can be opened as a model."""
    settings = run.program.lora
    return {
        "hf_config": _with_dtype(run),
        "export_dtype": run.config.checkpoints.export_dtype,
        "lora": None if settings is None else {**dataclasses.asdict(settings), "targets": list(settings.targets)},
        "init_from": None if run.checkpoint is None else str(run.checkpoint.folder.absolute()),
        "init_fingerprint": None if run.checkpoint is None else run.checkpoint.fingerprint,
    }


def _with_dtype(run: Run) -> dict[str, Any]:
    """The `config.json` of what is exported, in the dtype in which it is; adapters are merged in the dtype of their base."""
    if run.program.lora is not None:
        return run.hf_config
    name = "dtype" if "dtype" in run.hf_config else "torch_dtype"
    return {**run.hf_config, name: run.config.checkpoints.export_dtype}


def export(run: Run, saved: Path, output: Path) -> None:
    """Writes `output`/model from a saved step, a layer at a time, in this process alone; replaces what exists.

    Raises:
      InputError: it cannot be written.
    """
    target = output / MODEL_FOLDER
    if jax.process_count() == 1:
        _convert(str(saved), str(target))
    else:
        _convert_apart(str(saved), str(target))
    settings = run.program.lora
    if settings is not None:
        write_peft(output / ADAPTER_FOLDER, read_adapters(saved, run.model, settings), settings, about(run)["init_from"])


def _convert(source: str, target: str) -> None:
    convert(open_checkpoint(source), Path(target), "orbax", overwrite=True)


def _convert_apart(source: str, target: str) -> None:
    """The same in a process of its own: in one of several, Orbax waits for the others with whatever it writes."""
    code = f"from {__name__} import _convert; import sys; _convert(*sys.argv[1:])"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code, source, target], env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(
            f"{target}: could not be written ({reason}); make it with judgelm-convert --source={source} --to=orbax"
        )
