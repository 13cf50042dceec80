"""What the files beside a vocabulary say is obeyed, as `transformers` obeys them."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
import transformers
from tokenizers import processors

from judgelm_jax.errors import InputError
from judgelm_jax.tokens.tokenization import check_fits, load_tokenizer


def write(folder: Path, name: str, values: Any) -> None:
    (folder / name).write_text(json.dumps(values))


@pytest.fixture(scope="session")
def byte_level_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level `tokenizer.json` with `<s>` and `</s>` and without a post-processor."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator(["a small text about a cat"], trainer)
    path = tmp_path_factory.mktemp("bytes") / "tokenizer.json"
    model.save(str(path))
    return path


def template(single: str) -> Any:
    return processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])


PROCESSORS = {
    "none": None,
    "begin": template("<s> $A"),
    "begin and end": template("<s> $A </s>"),
    "end": template("$A </s>"),
    "neither": template("$A"),
    "sequence": processors.Sequence([processors.ByteLevel(trim_offsets=False), template("<s> $A </s>")]),
    "byte level": processors.ByteLevel(trim_offsets=False),
    "roberta": processors.RobertaProcessing(("</s>", 1), ("<s>", 0)),
    "bert": processors.BertProcessing(("</s>", 1), ("<s>", 0)),
}


@pytest.mark.parametrize("tokenizer_class", ["PreTrainedTokenizerFast", "GPT2Tokenizer"])
@pytest.mark.parametrize("form", PROCESSORS)
def test_the_post_processor_says_what_stands_before_a_text(
    byte_level_json: Path, tmp_path: Path, form: str, tokenizer_class: str
) -> None:
    model = tokenizers.Tokenizer.from_file(str(byte_level_json))
    if PROCESSORS[form] is not None:
        model.post_processor = PROCESSORS[form]
    model.save(str(tmp_path / "tokenizer.json"))
    write(
        tmp_path,
        "tokenizer_config.json",
        {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": tokenizer_class},
    )
    ours, theirs = load_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = theirs("cat").input_ids
    expected = ids[0] if ids[0] == theirs.bos_token_id else None
    assert ours.bos_id == expected
    assert ours.eos_ids == (1,)
    assert ours.encode("cat") == theirs.encode("cat", add_special_tokens=False)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer.model"])
@pytest.mark.parametrize("end", [None, False, True])
@pytest.mark.parametrize("begin", [None, False, True])
def test_add_bos_token_comes_first_and_prompts_get_no_end(
    shared: Path, tmp_path: Path, file: str, begin: bool | None, end: bool | None
) -> None:
    shutil.copy(shared / "data/tokenizers/llama_hf" / file, tmp_path)
    stated = {"add_bos_token": begin, "add_eos_token": end, "bos_token": "<s>", "eos_token": "</s>"}
    write(tmp_path, "tokenizer_config.json", {key: value for key, value in stated.items() if value is not None})
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.bos_id == (None if begin is False else 1)
    assert 2 not in tokenizer.encode("cat")


@pytest.mark.parametrize("stated", [None, False, True])
@pytest.mark.parametrize("form", ["begin", "neither"])
def test_the_post_processor_beside_a_sentencepiece_model_counts(
    shared: Path, tmp_path: Path, form: str, stated: bool | None
) -> None:
    llama = shared / "data/tokenizers/llama_hf"
    shutil.copy(llama / "tokenizer.model", tmp_path)
    values = json.loads((llama / "tokenizer.json").read_text())
    if form == "neither":
        values["post_processor"] = None
    write(tmp_path, "tokenizer.json", values)
    write(tmp_path, "tokenizer_config.json", {"add_bos_token": stated, "bos_token": "<s>"})
    expected = form == "begin" if stated is None else stated
    assert load_tokenizer(tmp_path).bos_id == (1 if expected else None)


def test_a_beginning_that_nobody_names_cannot_be_put(byte_level_json: Path, tmp_path: Path) -> None:
    shutil.copy(byte_level_json, tmp_path)
    write(tmp_path, "tokenizer_config.json", {"add_bos_token": True})
    with pytest.raises(InputError, match=r"add_bos_token is true, but no bos_token"):
        load_tokenizer(tmp_path)


def test_several_tokens_before_a_text_are_refused(byte_level_json: Path, tmp_path: Path) -> None:
    model = tokenizers.Tokenizer.from_file(str(byte_level_json))
    model.post_processor = template("<s> </s> $A")
    model.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="puts 2 tokens before every text"):
        load_tokenizer(tmp_path)


ROLES = ["<|im_start|>", "<|User|>", "<\uff5cAssistant\uff5c>", "[TOOL]", "### User", "assistant"]


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("stripped", [False, True])
def test_added_tokens_in_a_text_are_ordinary_characters(
    shared: Path, tmp_path: Path, special: bool, normalized: bool, stripped: bool
) -> None:
    llama = shared / "data/tokenizers/llama_hf"
    model = tokenizers.Tokenizer.from_file(str(llama / "tokenizer.json"))
    model.add_tokens(
        [
            tokenizers.AddedToken(role, normalized=normalized, special=special, lstrip=stripped, rstrip=stripped)
            for role in ROLES
        ]
    )
    model.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    library = sentencepiece.SentencePieceProcessor(model_file=str(llama / "tokenizer.model"))
    for role in ROLES:
        for text in (f"hello {role}user", f"{role}\n{role} x", role):
            assert tokenizer.encode(text) == library.encode(text)
            assert tokenizer.encode_batch([text]) == [library.encode(text)]
        assert tokenizer.id_of(role) == 32000 + ROLES.index(role)
    check_fits(tokenizer, 32000, tmp_path)  # no text gives the added ones
    assert not tokenizer.control_ids & set(range(3, 32000))


def test_white_space_and_single_letters_that_were_added_stay_text(byte_level_json: Path, tmp_path: Path) -> None:
    model = tokenizers.Tokenizer.from_file(str(byte_level_json))
    model.add_tokens(["    ", "\u00f6"])  # as GPT-NeoX's and DeepSeek's vocabularies have them
    model.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    for text in ("a    b", "sch\u00f6n"):
        assert tokenizer.encode(text) == model.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(tokenizer.encode("a    b")) == "a    b"
    with pytest.raises(InputError, match="gives ids up to"):
        check_fits(tokenizer, model.get_vocab_size() - 1, tmp_path)
    check_fits(tokenizer, model.get_vocab_size(), tmp_path)


CHATML = {"32000": {"content": "<|im_end|>", "special": True}, "32001": {"content": "<|im_start|>", "special": False}}


@pytest.mark.parametrize("where", ["added_tokens.json", "added_tokens_decoder", "both"])
def test_ids_of_added_tokens_are_those_of_any_file(shared: Path, tmp_path: Path, where: str) -> None:
    shutil.copy(shared / "data/tokenizers/llama_hf/tokenizer.model", tmp_path)
    config: dict[str, Any] = {"bos_token": "<s>", "eos_token": "<|im_end|>", "tokenizer_class": "LlamaTokenizer"}
    if where != "added_tokens.json":
        config["added_tokens_decoder"] = CHATML | {"2": {"content": "</s>", "special": True}}
    if where != "added_tokens_decoder":
        write(tmp_path, "added_tokens.json", {token["content"]: int(i) for i, token in CHATML.items()})
    write(tmp_path, "tokenizer_config.json", config)
    tokenizer = load_tokenizer(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.eos_ids == (theirs.eos_token_id,) == (32000,)
    assert tokenizer.vocab_size == 32001
    assert 32001 not in tokenizer.encode("hello <|im_start|>user")
    with pytest.raises(InputError, match="ends texts with token 32000 and the model has 32000"):
        check_fits(tokenizer, 32000, tmp_path)
    check_fits(tokenizer, 32001, tmp_path)


@pytest.mark.parametrize(
    ("file", "added", "decoder", "ids"),
    [
        ("tokenizer.model", {"<|im_end|>": 32001}, CHATML, "'<|im_end|>' is 32001 and 32000"),
        ("tokenizer.model", {"<pad>": 32000}, CHATML, "32000 is '<pad>' and '<|im_end|>'"),
        ("tokenizer.model", {"</s>": 7}, {}, "'</s>' is 2 and 7"),
        ("tokenizer.json", {}, {"32005": {"content": "<s>"}}, "'<s>' is 1 and 32005"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    shared: Path, tmp_path: Path, file: str, added: dict[str, int], decoder: dict[str, Any], ids: str
) -> None:
    shutil.copy(shared / "data/tokenizers/llama_hf" / file, tmp_path)
    write(tmp_path, "added_tokens.json", added)
    write(tmp_path, "tokenizer_config.json", {"added_tokens_decoder": decoder})
    with pytest.raises(InputError) as error:
        load_tokenizer(tmp_path)
    assert f"disagree: {ids}" in str(error.value)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_tiktoken_file_gives_way_to_tokenizer_json(shared: Path, tmp_path: Path, end: str) -> None:
    llama = shared / "data/tokenizers/llama_hf"
    shutil.copy(llama / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(f"IQ== 0{end}Ig== 1{end}Iw== 2{end}".encode())
    library = sentencepiece.SentencePieceProcessor(model_file=str(llama / "tokenizer.model"))
    assert load_tokenizer(tmp_path).encode("a cat") == library.encode("a cat")


def trained(folder: Path, **settings: Any) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the judge wrote 8 9 and 10 7.5", "a cat 0123456 sat"] * 30),
        model_writer=model,
        model_type="bpe",
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **{"vocab_size": 320, "byte_fallback": True, "normalization_rule_name": "identity"} | settings,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.mark.parametrize(
    "settings",
    [
        {"normalization_rule_name": "nmt_nfkc"},  # the default of SentencePiece
        {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": False},
        {"byte_fallback": False, "vocab_size": 60},
    ],
)
def test_a_tokenizer_that_loses_newlines_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    trained(tmp_path, **settings)
    with pytest.raises(InputError, match=r"tokenizer\.model: '8 9\\n' comes back as .*no verdict"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_json_that_loses_newlines_is_refused(byte_level_json: Path, tmp_path: Path) -> None:
    model = tokenizers.Tokenizer.from_file(str(byte_level_json))
    model.normalizer = tokenizers.normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
    model.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=r"tokenizer\.json: '8 9\\n' comes back as '8 9 '"):
        load_tokenizer(tmp_path)


def test_role_pieces_of_a_sentencepiece_model_are_ordinary_characters(tmp_path: Path) -> None:
    symbols = ["<|im_start|>", "[INST]", "listed", "sentence"]
    library = trained(tmp_path, user_defined_symbols=symbols)
    write(tmp_path, "special_tokens_map.json", {"additional_special_tokens": ["listed"]})
    tokenizer = load_tokenizer(tmp_path)
    ids = {symbol: library.piece_to_id(symbol) for symbol in symbols}
    for symbol in symbols[:3]:
        assert ids[symbol] in library.encode(f"a {symbol} b")  # by itself the library finds it
        assert ids[symbol] not in tokenizer.encode(f"a {symbol} b")
        assert tokenizer.decode(tokenizer.encode(f"a {symbol} b")) == f"a {symbol} b"
        assert ids[symbol] in tokenizer.control_ids
    assert tokenizer.encode("a sentence b") == library.encode("a sentence b")
