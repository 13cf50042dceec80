"""Adapters in the form of PEFT (the `peft` library), as every tool that takes LoRA adapters of a LLaMA model reads them."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save_file

from judgelm_jax.checkpoints.folders import replace_folder
from judgelm_jax.errors import InputError
from judgelm_jax.training_config import LoraConfig

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


def write_peft(folder: Path, adapters: dict[str, Any], lora: LoraConfig, base: str) -> None:
    """Writes adapters to `folder`, which appears when all of it is written; adapters that lay there are replaced.

    Work is done in a hidden folder beside it; what a killed run left there goes away with the next one.

    Args:
      adapters: as `model.lora` describes them, on the host; they are written in their own dtype.
      base: path or hub id of the model that they belong to, for tools that load it by itself.

    Raises:
      InputError: something else lies at `folder`, or it could not be written.
    """
    replaceable = (folder / CONFIG_FILE).is_file() or (folder.is_dir() and not any(folder.iterdir()))
    if os.path.lexists(folder) and (folder.is_symlink() or not replaceable):
        raise InputError(f"{folder}: holds no adapters, so it is not overwritten; choose another folder")
    work = folder.with_name(f".{folder.name}.partial")
    try:
        if work.exists():
            shutil.rmtree(work)
        fresh = work / "adapters"
        fresh.mkdir(parents=True)
        config = json.dumps(_config(lora, base), indent=2, ensure_ascii=False) + "\n"
        (fresh / CONFIG_FILE).write_text(config, encoding="utf-8")
        save_file(dict(_tensors(adapters)), fresh / WEIGHTS_FILE, metadata={"format": "pt"})
        # The library makes a file that only its owner reads; it shall be as readable as the other.
        (fresh / WEIGHTS_FILE).chmod((fresh / CONFIG_FILE).stat().st_mode)
        for file in fresh.iterdir():
            with file.open("rb+") as written:
                os.fsync(written.fileno())
        replace_folder(fresh, folder, work / "replaced")
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{folder}: the adapters could not be written ({error}); fix that and run again") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _tensors(adapters: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """PEFT's name and value of every matrix, a layer at a time: A [rank, in], B [out, rank]."""
    for part, projections in adapters["layers"].items():
        for name, pair in projections.items():
            for leaf, matrix in (("lora_a", "lora_A"), ("lora_b", "lora_B")):
                for layer, values in enumerate(np.asarray(pair[leaf])):
                    yield f"base_model.model.model.layers.{layer}.{part}.{name}.{matrix}.weight", np.ascontiguousarray(values)


def _config(lora: LoraConfig, base: str) -> dict[str, Any]:
    """Only fields that old versions of PEFT have too, for they refuse one that they do not."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,  # others read a whole number
        "target_modules": sorted(set(lora.targets)),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "inference_mode": True,
    }
