"""The ends that a config, a generation config and a tokenizer name, in the combinations that were published."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.end_tokens import ends_of
from judgelm_jax.errors import InputError
from judgelm_jax.model import config_json
from judgelm_jax.tokens.tokenization import Tokenizer, load_tokenizer

SIZES = {
    "model_type": "llama",
    "vocab_size": 130_000,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}


@dataclasses.dataclass
class Named:
    """What `ends_of` asks of a tokenizer: the names and roles of its ids."""

    eos_ids: tuple[int, ...]
    beginning: int | None
    control_ids: frozenset[int]


def ends(folder: Path, config: Any, generation: Any, own: int | None, beginning: int | None, controls: set[int]) -> Any:
    hf_config = SIZES if config == "missing" else SIZES | {"eos_token_id": config}
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    tokenizer: Any = Named(() if own is None else (own,), beginning, frozenset(controls))
    return ends_of(config_json.from_hf(hf_config), hf_config, folder, tokenizer)


LLAMA3 = set(range(128_000, 128_256))


@pytest.mark.parametrize(
    ("config", "generation", "own", "beginning", "controls", "expected"),
    [
        pytest.param(2, 2, 2, 1, {0, 1, 2}, (2,), id="vicuna"),
        pytest.param(2, None, 2, 1, {0, 1, 2}, (2,), id="llama-1"),
        pytest.param("missing", None, 2, 1, {0, 1, 2}, (2,), id="not stated"),
        pytest.param("missing", None, 32000, 1, {0, 1, 2, 32000}, (32000,), id="not stated, chatml"),
        pytest.param(None, None, 2, 1, {0, 1, 2}, (2,), id="null"),
        pytest.param(128001, [128001, 128009], 128009, 128000, LLAMA3, (128009, 128001), id="llama-3 instruct"),
        pytest.param(128001, 128001, 128001, 128000, LLAMA3, (128001,), id="llama-3 base"),
        pytest.param(
            [128001, 128008, 128009], [128001, 128008, 128009], 128009, 128000, LLAMA3, (128009, 128001, 128008), id="llama-3.1"
        ),
        pytest.param([128001, 128009], None, 128009, 128000, LLAMA3, (128009, 128001), id="a list in the config"),
        pytest.param(0, 0, 0, 0, {0, 1, 2}, (0,), id="smollm2 base: one token for both"),
        pytest.param(2, 2, 2, 1, {0, 1, 2}, (2,), id="smollm2 instruct"),
        pytest.param(2, 7, 2, 1, {0, 1, 2, 6, 7}, (2, 7), id="yi chat"),
        pytest.param(32000, 2, 32000, 1, {0, 1, 2, 32000}, (32000, 2), id="chatml fine-tune with the old generation config"),
        pytest.param(5, None, None, None, set(), (5,), id="a tokenizer that names none"),
        pytest.param(5, [7, 9], None, None, set(), (7, 9), id="a tokenizer that names none, generation config"),
        pytest.param(1, 2, 2, 1, {0, 1, 2}, (2,), id="the generation config is right"),
    ],
)
def test_ends_that_go_together(
    tmp_path: Path, config: Any, generation: Any, own: Any, beginning: Any, controls: set[int], expected: tuple[int, ...]
) -> None:
    assert ends(tmp_path, config, generation, own, beginning, controls) == expected


@pytest.mark.parametrize(
    ("config", "generation", "own", "named"),
    [
        pytest.param(1, 1, 2, (1, 2), id="decapoda: the beginning"),
        pytest.param(1, None, 2, (1, 2), id="the beginning in the config alone"),
        pytest.param(0, None, 2, (0, 2), id="unknown"),
        pytest.param(2, None, 32000, (2, 32000), id="the tokenizer's was changed"),
        pytest.param(32000, None, 2, (32000, 2), id="the config's was changed"),
        pytest.param([7, 9], None, 2, (7, 9, 2), id="a list without it"),
        pytest.param(2, 1, 2, (1, 2), id="the generation config's is the beginning"),
        pytest.param(2, [2, 1], 2, (1, 2), id="the beginning beside the end"),
        pytest.param(2, 500, 2, (500, 2), id="the generation config's is an ordinary piece"),
        pytest.param(7, 8, 2, (8, 2), id="three ends"),
    ],
)
def test_ends_that_disagree_are_refused_naming_both(
    tmp_path: Path, config: Any, generation: Any, own: int, named: tuple[int, ...]
) -> None:
    with pytest.raises(InputError) as error:
        ends(tmp_path, config, generation, own, 1, {0, 1, 2, 7, 8, 32000})
    for i in named:
        assert str(i) in str(error.value).replace(str(tmp_path), "")


def test_a_checkpoint_whose_tokenizer_ends_elsewhere_is_not_opened(laboratory_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(laboratory_checkpoint, folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"eos_token_id": 1}))
    with pytest.raises(InputError, match=r"ends texts at token 1, which is the tokenizer's beginning; its end is 2"):
        open_checkpoint(str(folder))
    (folder / "config.json").write_text(json.dumps(values | {"vocab_size": values["vocab_size"]}))
    tokenizer: Tokenizer = load_tokenizer(folder)
    assert open_checkpoint(str(folder)).config.eos_ids == tokenizer.eos_ids
