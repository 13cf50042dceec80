"""The model card (`README.md`) of an exported folder: what the model is, how it is asked, what it was trained on."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from judgelm_jax.prompts import prompts

CARD_FILE = "README.md"

_MARK = "<!-- Written by judgelm_jax; replaced with the checkpoint. -->"
_PACKAGES = ("judgelm-jax", "jax", "flax", "orbax-checkpoint", "safetensors", "tokenizers", "transformers")


def is_own_card(path: Path) -> bool:
    """Whether a file is a card that was written here, and may be replaced."""
    if path.name != CARD_FILE or not path.is_file():
        return False
    with path.open("rb") as file:
        return _MARK.encode() in file.read(4096)


def model_card(name: str, origin: str, hf_config: Mapping[str, Any], training: Mapping[str, Any] | None) -> str:
    """The text of a card.

    Args:
      name: of the model.
      origin: what the weights were made from.
      training: what is known of the run that made them, JSON; None: they were converted only.
    """
    shape = ", ".join(
        f"{hf_config[key]} {what}"
        for key, what in (
            ("num_hidden_layers", "layers"),
            ("hidden_size", "wide"),
            ("num_attention_heads", "heads"),
            ("vocab_size", "words"),
            ("max_position_embeddings", "positions"),
        )
        if key in hf_config
    )
    prompt = prompts.render("pair", "{question}", ["{answer 1}", "{answer 2}"], None)
    with_reference = prompts.render("pair", "{question}", ["{answer 1}", "{answer 2}"], "{reference}")
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [llm-judge]\n---",
        _MARK,
        f"# {name}",
        f"A `{hf_config.get('model_type')}` decoder ({shape}), from `{origin}`.",
        "## How it is asked\n\nWhat is in braces is put in as it is; BOS comes first where the tokenizer has it. The response "
        "begins with the line of scores, `8 6`, which ends with a newline.",
        _fenced(prompt),
        "With a reference answer:",
        _fenced(with_reference),
        "```\njudgelm-judge --model=THIS_FOLDER --input=records.jsonl --output=judgments.jsonl\n```",
    ]
    if training is not None:
        parts += [
            "## What it was trained on\n\nSHA-256 of the files, and the recipe:",
            "```json\n" + json.dumps(training, indent=2, ensure_ascii=False, sort_keys=True).replace("```", "'''") + "\n```",
        ]
    versions = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    parts.append("## Written with\n\n" + ", ".join(versions))
    return "\n\n".join(parts) + "\n"


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```"
