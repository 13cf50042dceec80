"""Tokenizers of GGUF files: the ids of llama.cpp, of SentencePiece, and of the tokenizers that they came from."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece
import transformers
from gguf_files import WIDTH, fault_of, write
from tokenizers import pre_tokenizers

from judgelm_jax.checkpoints import open_checkpoint, opening
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.errors import InputError
from judgelm_jax.model import decoder
from judgelm_jax.tokens.tokenization import load_tokenizer


def vocabulary(model: Path, add_bos: bool | None = True) -> Any:
    """Writes a SentencePiece model as llama.cpp's converter does."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))

    def add(writer: gguf.GGUFWriter) -> None:
        kinds = [
            gguf.TokenType.UNKNOWN
            if pieces.is_unknown(i)
            else gguf.TokenType.CONTROL
            if pieces.is_control(i)
            else gguf.TokenType.BYTE
            if pieces.is_byte(i)
            else gguf.TokenType.NORMAL
            for i in range(pieces.vocab_size())
        ]
        writer.add_tokenizer_model("llama")
        writer.add_token_list([pieces.id_to_piece(i) for i in range(pieces.vocab_size())])
        writer.add_token_scores([pieces.get_score(i) for i in range(pieces.vocab_size())])
        writer.add_token_types(kinds)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        if add_bos is not None:
            writer.add_add_bos_token(add_bos)

    return add


def embedding_for(words: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    table = {name: rng.normal(0, 0.06, (words, WIDTH)).astype(np.float32) for name in ("token_embd.weight", "output.weight")}
    return {"change": {"vocab_size": words}, "more": table}


def texts_of_llamacpp(shared: Path) -> tuple[list[str], list[list[int]]]:
    folder = shared / "data/tokenizers/llamacpp_vectors"
    texts = (folder / "ggml-vocab-llama-spm.gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = (folder / "ggml-vocab-llama-spm.gguf.out").read_text().splitlines()
    return texts[: len(lines)], [[int(i) for i in line.split()] for line in lines]


def test_a_sentencepiece_vocabulary_gives_the_ids_of_llamacpp_and_of_sentencepiece(shared: Path, tmp_path: Path) -> None:
    model = shared / "data/tokenizers/llama_hf/tokenizer.model"
    write(tmp_path / "a.gguf", tokenizer=vocabulary(model), **embedding_for(32000))
    checkpoint = open_checkpoint(str(tmp_path / "a.gguf"))
    tokenizer = load_tokenizer(checkpoint.tokenizer_folder)
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.vocab_size) == (1, (2,), 32000)
    original = sentencepiece.SentencePieceProcessor(model_file=str(model))
    texts, expected = texts_of_llamacpp(shared)
    assert len(texts) > 40
    for text, ids in zip(texts, expected, strict=True):
        assert tokenizer.encode(text) == ids == original.encode(text), text
        assert tokenizer.decode(ids) == original.decode(ids)
    for text in ("</s><s> 10 9\n\n  tabs\tand\r\nlines", "[INST] <unk> ▁x", "é😀\u0000"):
        assert tokenizer.encode(text) == original.encode(text)
    convert(checkpoint, tmp_path / "hf", "hf")
    exported = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert exported("Which is better? 7 9\n")["input_ids"] == [1, *original.encode("Which is better? 7 9\n")]


def write_byte_level(writer: gguf.GGUFWriter, tokenizer: Any, pre: str, control: tuple[str, ...]) -> None:
    content = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(content["vocab"], key=content["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in control else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in content["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe"])
def test_a_byte_level_vocabulary_gives_the_ids_of_the_tokenizer_that_it_came_from(tmp_path: Path, pre: str) -> None:
    """The tokenizer is trained here, with the split that Hugging Face's files of such models have."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    if pre == "llama-bpe":
        split = [pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    else:
        split = [pre_tokenizers.ByteLevel(False, use_regex=True)]
    if pre == "smollm":
        split.insert(0, pre_tokenizers.Digits(individual_digits=True))
    made.pre_tokenizer = pre_tokenizers.Sequence(split)
    words = Path(__file__).read_text() + Path(decoder.__file__).read_text() + " 10 100 2024 7 9\n" * 20
    control = ("<|begin|>", "<|end|>")
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=list(control), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(words.splitlines(keepends=True), trainer)
    size = made.get_vocab_size()
    write(tmp_path / "a.gguf", tokenizer=lambda w: write_byte_level(w, made, pre, control), **embedding_for(size))
    checkpoint = open_checkpoint(str(tmp_path / "a.gguf"))
    ours = load_tokenizer(checkpoint.tokenizer_folder)
    assert checkpoint.config.eos_ids == (1,)
    made.encode_special_tokens = True
    for text in (*words.splitlines(keepends=True)[:80], "10 9\n\n 8.5  <|end|>\t'LL it's 12345 é😀", " " * 9 + "x\r\n\r\n"):
        assert ours.encode(text) == made.encode(text, add_special_tokens=False).ids, text
        assert ours.decode(ours.encode(text)) == text
    # Whoever takes the export gets BOS where llama.cpp puts it.
    convert(checkpoint, tmp_path / "hf", "hf")
    exported = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert (exported("one")["input_ids"][0] == 0) == (pre == "llama-bpe")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.pre": "deepseek-llm"}, "splits text by the rule 'deepseek-llm'"),
        ({"tokenizer.ggml.pre": None}, "splits text by the rule None"),
        ({"tokenizer.ggml.model": "bert"}, "a tokenizer of the kind 'bert'"),
        ({"tokenizer.ggml.merges": ["a"]}, "tokenizer.ggml.merges or its tokens are broken"),
        ({"tokenizer.ggml.merges": ["a zz"]}, "tokenizer.ggml.merges does not fit its tokens"),
        ({"tokenizer.ggml.token_type": [1]}, "tokenizer.ggml.token_type does not fit"),
        ({"tokenizer.ggml.eos_token_id": 96}, "tokenizer.ggml.eos_token_id is 96, which is no token"),
        ({"tokenizer.ggml.model": "llama"}, "tokenizer.ggml.scores does not fit"),
    ],
    ids=str,
)
def test_a_tokenizer_that_cannot_be_right_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    values = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": ["a", "b", "ab"],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 2,
    } | change

    def add(writer: gguf.GGUFWriter) -> None:
        for key, value in values.items():
            add = {int: writer.add_uint32, str: writer.add_string, list: writer.add_array}
            if value is not None:
                add[type(value)](key, value)

    write(tmp_path / "a.gguf", tokenizer=add)
    assert message in fault_of(tmp_path / "a.gguf")


def small_vocabulary(**change: Any) -> Any:
    """Byte-level BPE of all bytes with a beginning and an end; `change` sets values of its metadata."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|begin|>", "<|end|>", *alphabet, "ab"]
    values = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [3, 3] + [1] * (len(tokens) - 2),
        "merges": ["a b"],
        "bos_token_id": 0,
        "eos_token_id": 1,
    } | change

    def add(writer: gguf.GGUFWriter) -> None:
        kinds = {int: writer.add_uint32, str: writer.add_string, list: writer.add_array}
        for key, value in values.items():
            kinds[type(value)](f"tokenizer.ggml.{key}", value)

    return add


def test_a_fault_of_the_tokenizer_names_the_file_that_holds_it(tmp_path: Path) -> None:
    tokens = ["<|begin|>", "<|end|>", *map(chr, range(97, 123)), "ab"]  # no newline
    own = small_vocabulary(tokens=tokens, token_type=[3, 3] + [1] * 27, merges=["a b"])
    write(tmp_path / "a.gguf", tokenizer=own, **embedding_for(len(tokens)))
    fault = fault_of(tmp_path / "a.gguf")
    assert fault.startswith(f"{tmp_path / 'a.gguf'}: its tokenizer.json: '8 9\\n' comes back as ")
    assert "judgelm-tokenizer-" not in fault


def test_a_file_without_a_tokenizer_is_named_where_one_is_needed(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf")
    with pytest.raises(InputError, match=r"a\.gguf: holds no tokenizer \(tokenizer\.ggml\.model\); name a GGUF that has one"):
        open_checkpoint(str(tmp_path / "a.gguf")).required_tokenizer()


def test_a_tokenizer_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(opening, "load_tokenizer", lambda folder: read.append(folder) or load_tokenizer(folder))
    write(tmp_path / "a.gguf", tokenizer=small_vocabulary(), **embedding_for(259))
    checkpoint = open_checkpoint(str(tmp_path / "a.gguf"))
    assert checkpoint.required_tokenizer().encode("ab") == checkpoint.required_tokenizer().encode("ab") == [258]
    assert read == [checkpoint.tokenizer_folder]
