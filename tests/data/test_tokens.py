"""Ids of examples are held against the `sentencepiece` library and against judging's own prompts."""

import dataclasses
import json
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.data.augmentation import Example, Variant, example_of
from judgelm_jax.data.tokens import Size, measure, tokenize
from judgelm_jax.errors import InputError
from judgelm_jax.prompts import prompts
from judgelm_jax.tokens.prompt_fitting import SHORTENED
from judgelm_jax.tokens.tokenization import Tokenizer, load_tokenizer

EXAMPLE = Example("7", "Why </s>?\n", ("because 🦙", ""), None, "8 6.5\nAssistant 1 says why.", False)
TEXTS = st.text(max_size=30) | st.sampled_from(["</s>", "<s>", "  \n\n ", "10 10", "word " * 40])


@pytest.fixture(scope="module")
def tokenizer(laboratory_checkpoint: Path) -> Tokenizer:
    return load_tokenizer(laboratory_checkpoint)


@pytest.fixture(scope="module")
def spm(laboratory_checkpoint: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(laboratory_checkpoint / "tokenizer.model"))


@given(question=TEXTS, first=TEXTS, second=TEXTS, reference=st.none() | TEXTS, explanation=TEXTS)
def test_ids_are_those_of_sentencepiece(
    tokenizer: Tokenizer,
    spm: sentencepiece.SentencePieceProcessor,
    question: str,
    first: str,
    second: str,
    reference: str | None,
    explanation: str,
) -> None:
    example = Example("1", question, (first, second), reference, f"9 7.5\n{explanation}", False)
    tokens = tokenize(example, tokenizer, 2, 10_000, "error")
    prompt = prompts.render("pair", question, [first, second], reference)
    assert tokens is not None
    assert tokens.ids[: tokens.prompt].tolist() == [spm.bos_id(), *spm.encode(prompt)]
    assert tokens.ids.tolist() == [spm.bos_id(), *spm.encode(prompt + example.target), 2]
    assert tokens.removed == (0, 0)
    assert measure([example], tokenizer, 2, 10_000, "error") == [Size(len(tokens.ids), len(tokens.ids) - tokens.prompt, False)]


@given(
    first=TEXTS, second=TEXTS, explanation=TEXTS, length=st.integers(1, 700), on_overflow=st.sampled_from(["truncate", "skip"])
)
def test_a_target_is_never_cut(
    tokenizer: Tokenizer, first: str, second: str, explanation: str, length: int, on_overflow: str
) -> None:
    example = Example("1", "q", (first * 5, second * 3), None, f"9 7.5\n{explanation}", False)
    whole = tokenize(example, tokenizer, 2, 10_000, "error")
    tokens = tokenize(example, tokenizer, 2, length, on_overflow)
    assert whole is not None
    [size] = measure([example], tokenizer, 2, length, on_overflow)
    if tokens is None:
        assert size is None
        assert len(whole.ids) > length
        return
    assert len(tokens.ids) <= length
    assert tokens.ids[tokens.prompt :].tolist() == whole.ids[whole.prompt :].tolist()
    assert tokens.ids[-1] == 2
    assert size == Size(len(tokens.ids), len(tokens.ids) - tokens.prompt, any(tokens.removed))
    if any(tokens.removed):
        assert on_overflow == "truncate"
        assert SHORTENED in tokenizer.decode(tokens.ids[: tokens.prompt])


def test_answers_are_shortened_and_nothing_else(tokenizer: Tokenizer) -> None:
    example = dataclasses.replace(EXAMPLE, answers=("long " * 200, "short"), reference="the reference")
    whole = tokenize(example, tokenizer, 2, 10_000, "error")
    assert whole is not None
    length = len(whole.ids) - 100
    tokens = tokenize(example, tokenizer, 2, length, "truncate")
    assert tokens is not None
    assert length - 5 <= len(tokens.ids) <= length
    assert tokens.removed[0] >= 100
    assert tokens.removed[1] == 0
    text = tokenizer.decode(tokens.ids)
    for part in (EXAMPLE.question, "the reference", "short", EXAMPLE.target, "### Response:"):
        assert part in text
    # What cannot be helped by shorter answers.
    assert tokenize(example, tokenizer, 2, 300, "truncate") is None
    assert tokenize(example, tokenizer, 2, 3, "truncate") is None
    assert tokenize(example, tokenizer, 2, length, "skip") is None
    with pytest.raises(InputError, match=r"'7' has \d+ tokens and a row .*; raise --config.data.length.*truncate"):
        tokenize(example, tokenizer, 2, length, "error")
    assert isinstance(measure([EXAMPLE, example], tokenizer, 2, length, "error")[1], InputError)


def test_real_judgments_with_the_llama_tokenizer(shared: Path) -> None:
    folder = shared / "data/tokenizers/llama_hf"
    tokenizer, spm = load_tokenizer(folder), sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    lines = (shared / "data/reviews/gpt4_pairs_train.jsonl").read_text(encoding="utf-8").splitlines()[::250]
    lines += (shared / "data/reviews/judgelm_100k_one_row.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    variants = [Variant(True, False)] * (len(records) - 1) + [Variant(True, True)]
    examples = [example_of(record, variant) for record, variant in zip(records, variants, strict=True)]
    for example, size in zip(examples, measure(examples, tokenizer, 2, 2048, "error"), strict=True):
        tokens = tokenize(example, tokenizer, 2, 2048, "error")
        assert tokens is not None
        prompt = prompts.render("pair", example.question, example.answers, example.reference)
        assert tokens.ids.tolist() == [1, *spm.encode(prompt + example.target), 2]
        assert tokens.prompt == 1 + len(spm.encode(prompt))
        assert size == Size(len(tokens.ids), len(tokens.ids) - tokens.prompt, False)
