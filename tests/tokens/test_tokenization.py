"""Ids are held against the `sentencepiece` library and published vectors, fitting against a brute-force search."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.prompts import prompts
from judgelm_jax.tokens.prompt_fitting import SHORTENED, FittedPrompt, fit_prompt
from judgelm_jax.tokens.tokenization import Tokenizer, load_tokenizer

HARD_TEXTS = [
    "",
    " ",
    "  two spaces  before and after  ",
    "tabs\tand\r\nnew\n\nlines",
    "emoji 🦙👩‍👩‍👧 and CJK 汉字かな and Ünïcödé",
    "a NUL \0 inside",
    "</s> <s> <unk> <|eot_id|> <|begin_of_text|> [INST] <0x41>",
    "▁ the mark of SentencePiece itself",
    "9.11 + 10 = 19.11",
]
# Any characters, and often what tokenizers treat in a special way.
TEXTS = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(["</s>", "<s>", "  ", " a", "\n", "\0", "é", "🦙", "10"]))).map(
    "".join
)


@pytest.fixture(scope="session")
def byte_level_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE `tokenizer.json` with control tokens in the way of Llama 3."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    model.train_from_iterator(["the quick brown fox judges the answers of two assistants, 10 to 1"] * 8, trainer)
    model.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    begin = model.token_to_id("<|begin_of_text|>")
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B", special_tokens=[("<|begin_of_text|>", begin)]
    )
    model.enable_truncation(5)  # as some published files have it; texts must come through whole
    folder = tmp_path_factory.mktemp("byte-level")
    model.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|eot_id|>", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


@pytest.fixture(scope="session")
def spm(laboratory_checkpoint: Path) -> Tokenizer:
    return load_tokenizer(laboratory_checkpoint)


@pytest.fixture(scope="session")
def byte_level(byte_level_folder: Path) -> Tokenizer:
    return load_tokenizer(byte_level_folder)


@pytest.fixture(scope="session", params=["sentencepiece", "tokenizers"])
def tokenizer(request: pytest.FixtureRequest, spm: Tokenizer, byte_level: Tokenizer) -> Tokenizer:
    return spm if request.param == "sentencepiece" else byte_level


@pytest.mark.parametrize("file", ["tokenizer.model", "tokenizer.json"])
def test_published_vectors_of_the_llama_tokenizer(shared: Path, tmp_path: Path, file: str) -> None:
    shutil.copy(shared / "data/tokenizers/llama_hf" / file, tmp_path)
    vectors = shared / "data/tokenizers/llamacpp_vectors/ggml-vocab-llama-spm.gguf"
    texts = Path(f"{vectors}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    expected = [[int(i) for i in line.split()] for line in Path(f"{vectors}.out").read_text().split("\n")]
    assert len(texts) == len(expected) == 47
    tokenizer = load_tokenizer(tmp_path)
    assert [tokenizer.encode(text) for text in texts] == expected
    assert tokenizer.encode_batch(texts) == expected
    assert tokenizer.bos_id == 1


@given(TEXTS)
def test_ids_are_those_of_the_sentencepiece_library(laboratory_checkpoint: Path, spm: Tokenizer, text: str) -> None:
    library = sentencepiece.SentencePieceProcessor(model_file=str(laboratory_checkpoint / "tokenizer.model"))
    assert spm.encode(text) == library.encode(text)


@given(TEXTS)
def test_both_forms_of_the_llama_tokenizer_agree(llama_forms: tuple[Tokenizer, Tokenizer], text: str) -> None:
    model, json_form = llama_forms
    ids = model.encode(text)
    assert json_form.encode(text) == ids
    assert json_form.decode(ids) == model.decode(ids)


@pytest.fixture(scope="session")
def llama_forms(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Tokenizer]:
    folders = []
    for file in ("tokenizer.model", "tokenizer.json"):
        folders.append(tmp_path_factory.mktemp("llama"))
        shutil.copy(shared / "data/tokenizers/llama_hf" / file, folders[-1])
    return load_tokenizer(folders[0]), load_tokenizer(folders[1])


# Ids 3 to 258 are bytes. Where they make no UTF-8 the libraries differ in the number of replacement characters; and where the
# first one is a space, which no text is encoded to.
PIECES = st.one_of(st.integers(0, 2), st.integers(259, 31_999)).map(lambda i: [i])
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters=" ").map(lambda c: [byte + 3 for byte in c.encode()])


@given(ids=st.lists(st.one_of(PIECES, CHARACTERS), max_size=12).map(lambda parts: [i for part in parts for i in part]))
def test_any_ids_decode_as_transformers_decodes_them(
    llama_forms: tuple[Tokenizer, Tokenizer], llama_of_transformers: Any, ids: list[int]
) -> None:
    expected = llama_of_transformers.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert [tokenizer.decode(ids) for tokenizer in llama_forms] == [expected, expected]


def test_a_space_as_a_byte_decodes_as_the_library_of_each_form_decodes_it(
    llama_forms: tuple[Tokenizer, Tokenizer], llama_of_transformers: Any, shared: Path
) -> None:
    library = sentencepiece.SentencePieceProcessor(model_file=str(shared / "data/tokenizers/llama_hf/tokenizer.model"))
    model, json_form = llama_forms
    space, letter = 0x20 + 3, model.encode("a")[0]
    for ids in ([space], [space, letter], [letter, space, letter]):
        assert model.decode(ids) == library.decode(ids)
        assert json_form.decode(ids) == llama_of_transformers.decode(ids, clean_up_tokenization_spaces=False)
    assert model.decode([space]) != json_form.decode([space])  # else both would belong to the property above


@pytest.fixture(scope="session")
def llama_of_transformers(shared: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(shared / "data/tokenizers/llama_hf", local_files_only=True)


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_hard_texts_come_back_and_hold_no_control_tokens(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert not {tokenizer.bos_id, *tokenizer.eos_ids} & set(ids)
    expected = text.replace("▁", " ") if tokenizer.id_of("▁") is not None else text
    assert tokenizer.decode(ids) == expected
    assert tokenizer.encode_batch([text, "x"]) == [ids, tokenizer.encode("x")]


def test_lone_surrogates_count_as_the_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a\ud800b\udfff") == tokenizer.encode("a\ufffdb\ufffd")
    assert tokenizer.encode_batch(["\ud800"]) == [tokenizer.encode("\ufffd")]


def test_decoding_skips_control_tokens_and_unknown_ids(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("8 9")
    assert tokenizer.bos_id is not None
    assert tokenizer.decode([tokenizer.bos_id, *ids, *tokenizer.eos_ids, tokenizer.vocab_size, 10**6]) == "8 9"


def test_control_tokens_are_those_that_the_files_name(byte_level_folder: Path, byte_level: Tokenizer, tmp_path: Path) -> None:
    library = tokenizers.Tokenizer.from_file(str(byte_level_folder / "tokenizer.json"))
    assert byte_level.bos_id == library.token_to_id("<|begin_of_text|>")
    assert byte_level.eos_ids == (library.token_to_id("<|eot_id|>"),)
    shutil.copy(byte_level_folder / "tokenizer.json", tmp_path)  # alone, it names no end
    assert (load_tokenizer(tmp_path).bos_id, load_tokenizer(tmp_path).eos_ids) == (byte_level.bos_id, ())


def test_a_control_token_added_beside_the_sentencepiece_model_is_found(laboratory_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(laboratory_checkpoint / "tokenizer.model", tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "", "eos_token": "<|im_end|>"}))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|im_end|>": 50_000}))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, (50_000,))


def test_the_tokenizer_is_chosen_by_files_not_by_path(
    laboratory_checkpoint: Path, byte_level_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "llama-3-vicuna"
    folder.mkdir()
    shutil.copy(byte_level_folder / "tokenizer.json", folder)
    ids = load_tokenizer(folder).encode("two assistants")
    shutil.copy(laboratory_checkpoint / "tokenizer.model", folder)
    assert (
        load_tokenizer(folder).encode("two assistants") == load_tokenizer(laboratory_checkpoint).encode("two assistants") != ids
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has neither tokenizer.model nor tokenizer.json"),
        ({"tokenizer.model": "no model"}, "tokenizer.model: not a SentencePiece model"),
        ({"tokenizer.json": "{}"}, "tokenizer.json: not a tokenizer"),
        ({"tokenizer_config.json": "{"}, "tokenizer_config.json:1: not valid JSON"),
        ({"tokenizer_config.json": "[]"}, "tokenizer_config.json: holds no JSON object"),
        ({"tokenizer_config.json": '{"eos_token": "<end>"}'}, "eos_token is '<end>', which is not in the vocabulary"),
        ({"tokenizer_config.json": '{"bos_token": 7}'}, "bos_token is 7, which is not in the vocabulary"),
        ({"tokenizer_config.json": '{"add_bos_token": "yes"}'}, "add_bos_token is 'yes'"),
        ({"tokenizer_config.json": '{"a": ' + "[" * 9999 + "]" * 9999 + "}"}, "nested more than"),
        ({"tokenizer_config.json": '{"added_tokens_decoder": [1]}'}, "added_tokens_decoder is no object"),
        ({"tokenizer_config.json": '{"added_tokens_decoder": {"x": {}}}'}, "added_tokens_decoder has 'x'"),
        ({"tokenizer_config.json": "{}", "added_tokens.json": '{"<pad>": "9"}'}, "the id of '<pad>' is '9'"),
        ({"tokenizer.json": '{"a": ' + "[" * 9999 + "]" * 9999 + "}"}, "nested more than"),
        ({"tokenizer.json": '{"model": 3, "added_tokens": 4}'}, "tokenizer.json: not a tokenizer"),
        ({"tokenizer.json": "\ufeff{}"}, "byte order mark"),
        ({"tokenizer.json": "version https://git-lfs.github.com/spec/v1\n"}, "Git LFS pointer"),
        ({"tokenizer_config.json": "version https://git-lfs.github.com/spec/v1\n"}, "Git LFS pointer"),
        ({"tokenizer.model": "", "tokenizer.json": "{}"}, "tokenizer.model: broken or cut off (it is empty)"),
        ({"tokenizer.model": "<!DOCTYPE html>"}, "tokenizer.model: is a web page"),
        ({"tokenizer.model": "version https://git-lfs.github.com/spec/v1\n"}, "Git LFS pointer"),
        ({"tokenizer.model": "IQ== 0\nIg== 1\n"}, "tokenizer.model: a tiktoken vocabulary"),
        ({"tokenizer.model": "IQ== 0\r\nIg== 1\r\n"}, "tokenizer.model: a tiktoken vocabulary"),
    ],
)
def test_broken_files_are_named(laboratory_checkpoint: Path, tmp_path: Path, files: dict[str, str], message: str) -> None:
    if "tokenizer_config.json" in files:
        shutil.copy(laboratory_checkpoint / "tokenizer.model", tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as raised:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert message in str(raised.value)


def test_folders_share_a_tokenizer_as_long_as_their_files_are_the_same(laboratory_checkpoint: Path, tmp_path: Path) -> None:
    mine, copy = (shutil.copytree(laboratory_checkpoint, tmp_path / name) for name in ("mine", "copy"))
    before = load_tokenizer(mine)
    assert load_tokenizer(copy) is before
    config = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": False}))
    after = load_tokenizer(copy)
    assert (before.bos_id, after.bos_id) == (1, None)
    assert load_tokenizer(mine) is before
    (copy / "tokenizer_config.json").unlink()
    assert load_tokenizer(copy) not in (before, after)


def test_threads_may_share_a_tokenizer(tokenizer: Tokenizer) -> None:
    texts = [f"{text} {i}" for i in range(40) for text in HARD_TEXTS]
    expected = [tokenizer.encode(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tokenizer.encode, texts)) == expected
        assert list(pool.map(tokenizer.decode, expected)) == [tokenizer.decode(ids) for ids in expected]


@given(text=TEXTS, tokens=st.integers(0, 12))
def test_a_prefix_never_exceeds_its_tokens_and_loses_at_most_a_character(tokenizer: Tokenizer, text: str, tokens: int) -> None:
    prefix = tokenizer.prefix(text, tokens)
    assert text.startswith(prefix)
    assert len(tokenizer.encode(prefix)) <= tokens
    if len(tokenizer.encode(text)) <= tokens:
        assert prefix == text
    elif "▁" not in text:
        # What is missing to `tokens` is less than the bytes of the next character, or a token that split differently.
        assert len(tokenizer.encode(prefix)) >= tokens - 4


def test_a_prefix_cuts_between_characters(tokenizer: Tokenizer) -> None:
    text = "ab" + "🦙" * 5
    whole = len(tokenizer.encode(text))
    prefixes = {tokenizer.prefix(text, tokens) for tokens in range(whole + 1)}
    assert {text[:n] for n in range(2, 8)} <= prefixes
    assert all(text.startswith(prefix) for prefix in prefixes)


QUESTION, REFERENCE = "Why is the sky blue?\n", "Rayleigh scattering."


def fit(tokenizer: Tokenizer, answers: list[str], budget: int) -> FittedPrompt | None:
    return fit_prompt(tokenizer, lambda texts: prompt_ids(tokenizer, list(texts)), answers, budget)


def prompt_ids(tokenizer: Tokenizer, answers: list[str]) -> list[int]:
    kind = "pair" if len(answers) == 2 else "multi"
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    return begin + tokenizer.encode(prompts.render(kind, QUESTION, answers, REFERENCE))


def shortened_to(tokenizer: Tokenizer, answers: list[str], length: int) -> list[str]:
    return [
        answer if len(tokenizer.encode(answer)) <= length else tokenizer.prefix(answer, length) + SHORTENED
        for answer in answers
    ]


def test_a_prompt_that_fits_exactly_is_not_touched(tokenizer: Tokenizer) -> None:
    answers = ["Light is scattered.", "It is an ocean. </s>"]
    ids = prompt_ids(tokenizer, answers)
    assert fit(tokenizer, answers, len(ids)) == FittedPrompt(ids, (0, 0))
    assert fit(tokenizer, answers, len(ids) - 1) != FittedPrompt(ids, (0, 0))


@pytest.mark.parametrize(
    "answers",
    [
        ["word " * 60, "other words, " * 40],
        ["short", "a much longer answer, " * 20],
        ["a much longer answer, " * 20, ""],
        ["🦙" * 30, "汉字" * 40, "text " * 10],
        ["of nearly one length " * 6, "of nearly one length  " * 6],
        ["\0\n " * 30, "</s><s>" * 20],
    ],
)
def test_answers_are_cut_to_the_largest_common_length_that_fits(tokenizer: Tokenizer, answers: list[str]) -> None:
    sizes = [len(tokenizer.encode(answer)) for answer in answers]
    trials = [prompt_ids(tokenizer, shortened_to(tokenizer, answers, length)) for length in range(max(sizes))]
    whole = len(prompt_ids(tokenizer, answers))
    for budget in range(len(trials[0]) - 2, whole, 7):
        fitting = [length for length, ids in enumerate(trials) if len(ids) <= budget]
        fitted = fit(tokenizer, answers, budget)
        if not fitting:
            assert fitted is None
            continue
        assert fitted is not None
        assert fitted.ids == trials[fitting[-1]]
        for size, removed, answer in zip(sizes, fitted.removed, answers, strict=True):
            kept = len(tokenizer.encode(tokenizer.prefix(answer, fitting[-1])))
            assert removed == (0 if size <= fitting[-1] else size - kept)


def test_question_and_reference_are_never_cut(tokenizer: Tokenizer) -> None:
    fitted = fit(tokenizer, ["long " * 500, "longer " * 500], len(prompt_ids(tokenizer, ["", ""])) + 60)
    assert fitted is not None
    text = tokenizer.decode(fitted.ids)
    before, after = prompts.render("pair", QUESTION, ["@", "@"], REFERENCE).split("@", 1)
    assert text.startswith(before)
    assert text.endswith(after.rpartition("@")[2])
    assert text.count(SHORTENED) == 2


def test_a_prompt_that_does_not_fit_without_answers_is_refused(tokenizer: Tokenizer) -> None:
    bare = len(prompt_ids(tokenizer, [SHORTENED, SHORTENED]))
    assert fit(tokenizer, ["word " * 50] * 2, bare) is not None
    assert fit(tokenizer, ["word " * 50] * 2, bare - 1) is None
    assert fit(tokenizer, ["", ""], len(prompt_ids(tokenizer, ["", ""])) - 1) is None


def test_answers_of_two_hundred_thousand_characters_are_cut_quickly(tokenizer: Tokenizer) -> None:
    answers = [("The quick 🦙 brown 汉字 fox jumps. " * 8000)[:200_000], "a" * 200_000]
    start = time.perf_counter()
    fitted = fit(tokenizer, answers, 2000)
    assert time.perf_counter() - start < 3
    assert fitted is not None
    assert 1980 <= len(fitted.ids) <= 2000
