"""At which tokens a text of a checkpoint ends: its config, its generation config and its tokenizer must go together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.model import config_json
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.notices import say_once
from judgelm_jax.records.json_object import read_json_object
from judgelm_jax.tokens.tokenization import Tokenizer

GENERATION_FILE = "generation_config.json"


def ends_of(config: ModelConfig, hf_config: Mapping[str, Any], folder: Path, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """The ends of sequence; the tokenizer's own, with which training ends every target, comes first.

    They are those of `generation_config.json` (in `folder`, beside the tokenizer) where it names any, as in
    `transformers`, else those of the config. The tokenizer's end must be one of them: Llama 3 names three, one of which
    ends a turn. An older `generation_config.json` may name another control token while config and tokenizer agree; then a text
    ends at either. Where the config states none, the tokenizer's counts.

    Raises:
      InputError: two files name different ends, or a text would end at its own beginning; names the ids.
    """
    path = folder / GENERATION_FILE
    generation = _generation_ends(path, config.vocab_size)
    stated = config.eos_ids if "eos_token_id" in hf_config or tokenizer is None or not tokenizer.eos_ids else ()
    ends, place = (generation, GENERATION_FILE) if generation else (stated, "config.json")
    if tokenizer is None or not tokenizer.eos_ids:
        return ends
    own = tokenizer.eos_ids[0]
    if not ends:
        return tokenizer.eos_ids
    beginning = tokenizer.beginning
    if own != beginning and beginning in ends:
        raise InputError(
            f"{folder}: {place} ends texts at token {beginning}, which is the tokenizer's beginning; its end is {own}; "
            "correct eos_token_id"
        )
    if own in ends:
        return (own, *(i for i in ends if i != own))
    if generation and own in config.eos_ids and all(i in tokenizer.control_ids for i in generation):
        say_once(f"{path}: ends texts at {_listed(ends)}, config and tokenizer at {own}: they end at either")
        return (own, *ends)
    raise InputError(
        f"{folder}: {place} ends texts at token {_listed(ends)} and the tokenizer at {own}; correct eos_token_id there, or "
        "eos_token in tokenizer_config.json"
    )


def _generation_ends(path: Path, vocab_size: int) -> tuple[int, ...]:
    if not path.is_file():
        return ()
    try:
        return config_json.token_ids(read_json_object(path).get("eos_token_id"), vocab_size)
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error


def _listed(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids))
