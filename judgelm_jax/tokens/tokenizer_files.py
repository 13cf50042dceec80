"""What the files beside a vocabulary say: names and ids of control tokens, and what stands before every text."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.records.json_object import read_json_object

CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
DECODER = "added_tokens_decoder"  # in CONFIG_FILE; later versions of `transformers` write it instead of ADDED_FILE

_AGAIN = "fetch the tokenizer files again"
_MARKUP = re.compile(r"<[|\uff5c].*[|\uff5c]>|<<?/?[A-Z_]+>?>|\[/?[A-Z_]+\]")


@dataclasses.dataclass(frozen=True)
class TokenizerFiles:
    """The settings of a folder. `added` are the tokens added to the vocabulary, with their ids, of all files together."""

    folder: Path
    config: dict[str, Any]
    special: dict[str, Any]
    added: dict[str, int]

    def named(self, name: str) -> tuple[Path, Any] | None:
        """The token that `bos_token` or another such name stands for, and the file that says so; None: no file does."""
        for file, values in ((CONFIG_FILE, self.config), (SPECIAL_FILE, self.special)):
            token = values.get(name)
            if isinstance(token, dict):
                token = token.get("content")
            if token:
                return self.folder / file, token
        return None

    def control_names(self) -> set[str]:
        """Every token that some file names as one of a role, or adds."""
        names: set[str] = set(self.added)
        for values in (self.config, self.special):
            for name, value in values.items():
                if name.endswith("_token") or name.endswith("special_tokens"):
                    for token in value if isinstance(value, list) else [value]:
                        content = token.get("content") if isinstance(token, dict) else token
                        names |= {content} if isinstance(content, str) else set()
        return names

    def puts_bos(self) -> bool | None:
        """`add_bos_token`; None where it is not stated."""
        value = self.config.get("add_bos_token")
        if value not in (None, False, True):
            raise InputError(f"{self.folder / CONFIG_FILE}: add_bos_token is {value!r}; it must be true or false")
        return None if value is None else bool(value)


def read_tokenizer_files(folder: Path) -> TokenizerFiles:
    """Reads the files beside the vocabulary; a missing one says nothing.

    Raises:
      InputError: a file is broken, or two contradict each other; names them.
    """
    config, special, listed = (_read(folder / name) for name in (CONFIG_FILE, SPECIAL_FILE, ADDED_FILE))
    added: dict[str, int] = {}
    for name, i in listed.items():
        if type(i) is not int or i < 0:
            raise InputError(f"{folder / ADDED_FILE}: the id of {name!r} is {i!r}; {_AGAIN}")
        added[name] = i
    decoder = config.get(DECODER) or {}
    if not isinstance(decoder, dict):
        raise InputError(f"{folder / CONFIG_FILE}: {DECODER} is no object; {_AGAIN}")
    decoded: dict[str, int] = {}
    for key, token in decoder.items():
        content = token.get("content") if isinstance(token, dict) else token
        if not re.fullmatch(r"\d{1,9}", key, re.ASCII) or not isinstance(content, str):
            raise InputError(f"{folder / CONFIG_FILE}: {DECODER} has {key!r}: {str(token)[:80]}; {_AGAIN}")
        decoded[content] = int(key)
    refuse_contradiction(added, folder / ADDED_FILE, decoded, folder / CONFIG_FILE)
    return TokenizerFiles(folder, config, special, decoded | added)


def refuse_contradiction(first: dict[str, int], file: Path, second: dict[str, int], other: Path) -> None:
    """Raises an `InputError` where two files give one token two ids, or one id two tokens."""
    for name, i in second.items():
        if first.get(name, i) != i:
            raise InputError(f"{file} and {other.name} disagree: {name!r} is {first[name]} and {i}; {_AGAIN}")
    names = {i: name for name, i in first.items()}
    for name, i in second.items():
        if names.get(i, name) != name:
            raise InputError(f"{file} and {other.name} disagree: {i} is {names[i]!r} and {name!r}; {_AGAIN}")


def is_role_markup(token: str) -> bool:
    """Whether a token looks like one that marks roles: `<|user|>`, `[INST]`, `<<SYS>>`."""
    return _MARKUP.fullmatch(token.strip("\u2581 ")) is not None


def is_text(token: str) -> bool:
    """Whether an added token can mark no role: white space, or one character, which some vocabularies lack otherwise."""
    return len(token) <= 1 or not token.strip("\u2581 \t\r\n\f\v\u00a0")


def first_of(tokenizer: Any, path: Path) -> int | None:
    """The id that the post-processor of a `tokenizers` tokenizer puts before every text, whatever its form.

    Raises:
      InputError: it puts several.
    """
    whole: list[int] = tokenizer.encode("a", add_special_tokens=True).ids
    text: list[int] = tokenizer.encode("a", add_special_tokens=False).ids
    starts: Iterable[int] = range(len(whole) - len(text) + 1)
    start = next((start for start in starts if whole[start : start + len(text)] == text), 0)
    if start > 1:
        raise InputError(f"{path}: puts {start} tokens before every text {whole[:start]}; one is supported")
    return whole[0] if start else None


def is_tiktoken(path: Path) -> bool:
    """Whether a file is a vocabulary of tiktoken: lines of a token in base64 and its rank."""
    with path.open("rb") as file:
        return re.match(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n", file.read(4096)) is not None


def sentencepiece_proto(content: bytes) -> Any:
    """A SentencePiece model as a message, which says the types of its pieces and can be changed."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(content)
    return proto


def _read(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}
