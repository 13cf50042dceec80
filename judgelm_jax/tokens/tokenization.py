"""Text ⇄ token ids with the checkpoint's own tokenizer files, and prompts that fit a budget of tokens.

Text from records is data: `</s>`, `<s>` and `<|eot_id|>` inside it are ordinary characters, never control tokens.
"""

import abc
import dataclasses
import functools
import hashlib
import itertools
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.records.json_object import read_json_object
from judgelm_jax.records.stand_ins import refuse_stand_ins
from judgelm_jax.tokens.tokenizer_files import (
    ADDED_FILE,
    CONFIG_FILE,
    SPECIAL_FILE,
    TokenizerFiles,
    first_of,
    is_role_markup,
    is_text,
    is_tiktoken,
    read_tokenizer_files,
    refuse_contradiction,
    sentencepiece_proto,
)

SENTENCEPIECE_FILE = "tokenizer.model"
TOKENIZERS_FILE = "tokenizer.json"
VOCABULARY_FILES = (SENTENCEPIECE_FILE, TOKENIZERS_FILE)
# All that belongs to a tokenizer; `load_tokenizer` reads no other files.
TOKENIZER_FILES = (*VOCABULARY_FILES, CONFIG_FILE, SPECIAL_FILE, ADDED_FILE)
# A text that goes on is tokenized behind this one, because tokenizers may begin a text with a space of their own.
_BEHIND_THIS = "."

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer(abc.ABC):
    """Text ⇄ ids. Holds no state that changes, so threads may share it.

    `bos_id` stands before every prompt; None: nothing does. `eos_ids` are those that the tokenizer's files name;
    `vocab_size` counts the ids that there are (the embedding of a model may have more rows); `last_id` is the largest that
    `encode` gives. `control_ids` mark roles or ends, so `encode` never gives them; `control_names` are the names of those that
    have one; `beginning` is the one named `bos_token`.
    """

    bos_id: int | None
    eos_ids: tuple[int, ...]
    vocab_size: int
    last_id: int
    control_ids: frozenset[int]
    control_names: dict[str, int]
    beginning: int | None

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without BOS. Lone surrogates, which UTF-8 does not have, count as U+FFFD."""

    @abc.abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on the threads of the library."""

    @abc.abstractmethod
    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """The ids of texts and `control_ids` in their order. Texts side by side are one text."""

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, without control tokens and ids beyond the vocabulary; spaces stay as they are."""

    @abc.abstractmethod
    def id_of(self, token: str) -> int | None:
        """The id of a token by its name in the vocabulary."""

    def prefix(self, text: str, tokens: int) -> str:
        """A prefix of `text` whose own encoding has at most `tokens` tokens, cut between two characters.

        It ends where the first `tokens` tokens of `text` end, or earlier where those end inside a character or
        where the prefix alone encodes to more. No longer one is tried: a few characters more might fit by chance.
        """
        return self.cut(text, self.encode(text), tokens)[0]

    def cut(self, text: str, ids: list[int], tokens: int) -> tuple[str, int]:
        """`prefix` of a text whose `ids` are known, and the number of tokens of that prefix."""
        if len(ids) <= tokens:
            return text, len(ids)
        readable = _readable(text)
        kept = tokens
        while kept > 0:
            start = self.decode(ids[:kept])
            if not readable.startswith(start):
                start = start.rstrip("\ufffd")  # the last token ended inside a character
            count = len(self.encode(readable[: len(start)]))
            if count <= tokens:
                return text[: len(start)], count
            kept -= count - tokens
        return "", 0


class _SentencePieceTokenizer(Tokenizer):
    def __init__(self, path: Path) -> None:
        import sentencepiece

        files = read_tokenizer_files(path.parent)
        content = path.read_bytes()
        try:
            model = sentencepiece.SentencePieceProcessor(model_proto=content)
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path}: not a SentencePiece model ({error}); fetch the checkpoint again") from error
        size = model.vocab_size()
        self._model = self._encoder = model
        self._silent = frozenset(i for i in range(size) if model.is_control(i) or model.is_unknown(i))
        self._added, self._size = files.added, size
        pieces = {model.id_to_piece(i): i for i in range(size)}
        known = {name: pieces[name] for name in files.added if name in pieces}
        refuse_contradiction(known, path, {name: files.added[name] for name in known}, path.parent / CONFIG_FILE)
        # The library itself finds these in any text.
        names = files.control_names()
        proto = sentencepiece_proto(content)
        roles = {
            i
            for i, piece in enumerate(proto.pieces)
            if piece.type == proto.SentencePiece.USER_DEFINED
            and not is_text(piece.piece)
            and (piece.piece in names or is_role_markup(piece.piece))
        }
        if roles:
            for i in roles:
                proto.pieces[i].type = proto.SentencePiece.CONTROL
            self._encoder = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        self.last_id = max(i for i in range(size) if not (i in roles or model.is_control(i) or model.is_unused(i)))
        self.control_ids = self._silent | roles | frozenset(files.added.values())
        self.control_names = {model.id_to_piece(i): i for i in self._silent | roles}
        self.control_names |= {name: i for name, i in files.added.items() if not is_text(name)}
        # With `legacy: false`, only what stands at the very beginning gets the space of SentencePiece.
        self._continuing = self._encoder
        if files.config.get("legacy") is False:
            proto.normalizer_spec.add_dummy_prefix = False
            self._continuing = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        self.beginning = _named_id(self, files, "bos_token", model.bos_id())
        beside = path.parent / TOKENIZERS_FILE
        if files.puts_bos() is None and beside.is_file():
            self.bos_id = first_of(_read_tokenizers(beside), beside)
        else:
            self.bos_id = _put(self, files, self.beginning)
        eos_id = _named_id(self, files, "eos_token", model.eos_id())
        self.eos_ids = () if eos_id is None else (eos_id,)
        self.vocab_size = max(size, *(i + 1 for i in (self.bos_id, eos_id) if i is not None))

    def encode(self, text: str) -> list[int]:
        return self._encoder.encode(_readable(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._encoder.encode([_readable(text) for text in texts])

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        ids: list[int] = []
        for written, group in itertools.groupby(parts, key=lambda part: isinstance(part, str)):
            if not written:
                ids += [int(part) for part in group]
            elif text := "".join(map(str, group)):
                ids += (self._continuing if ids else self._encoder).encode(_readable(text))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        return self._model.decode([i for i in map(int, ids) if i < self._size and i not in self._silent])

    def id_of(self, token: str) -> int | None:
        i = self._model.piece_to_id(token)
        return i if self._model.id_to_piece(i) == token else self._added.get(token)


class _JsonTokenizer(Tokenizer):
    def __init__(self, path: Path) -> None:
        files = read_tokenizer_files(path.parent)
        self._model = _read_tokenizers(path)
        self._model.encode_special_tokens = True
        self._model.no_truncation()
        self._model.no_padding()
        added = self._model.get_added_tokens_decoder()
        self._silent = frozenset(i for i, token in added.items() if token.special)
        self._added = files.added
        known = {token.content: i for i, token in added.items()}
        refuse_contradiction(known, path, files.added, path.parent / CONFIG_FILE)
        self.bos_id = self.beginning = first_of(self._model, path)
        # With `encode_special_tokens`, text holds no special tokens. So all are made special that could mark a role; what
        # `decode` leaves out is known already.
        roles = [token for token in added.values() if not token.special and not is_text(token.content)]
        if roles:
            for token in roles:
                token.special = True
            self._model.add_special_tokens(roles)
        never = {i for i, token in added.items() if token.special or token in roles}
        self.control_ids = frozenset(never)
        self.control_names = {token.content: i for i, token in added.items() if i in never}
        words = self._model.get_vocab(with_added_tokens=False)
        self.last_id = max(
            [i for word, i in words.items() if i not in never or i in self.encode(word)] + [i for i in added if i not in never]
        )
        self.vocab_size = self._model.get_vocab_size(with_added_tokens=True)
        self.beginning = _named_id(self, files, "bos_token", -1 if self.bos_id is None else self.bos_id)
        if files.puts_bos() is not None:
            self.bos_id = _put(self, files, self.beginning)
        eos_id = _named_id(self, files, "eos_token", -1)
        self.eos_ids = () if eos_id is None else (eos_id,)

    def encode(self, text: str) -> list[int]:
        return self._model.encode(_readable(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        batch = [_readable(text) for text in texts]
        return [encoding.ids for encoding in self._model.encode_batch(batch, add_special_tokens=False)]

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        model, names, controls = self._with_stand_ins
        text = "".join(_readable(part) if isinstance(part, str) else names[part] for part in parts)
        return [controls.get(i, i) for i in model.encode(text, add_special_tokens=False).ids]

    @functools.cached_property
    def _with_stand_ins(self) -> tuple[Any, dict[int, str], dict[int, int]]:
        """A tokenizer that parts a text at control tokens under names that no text holds, these names, and what they mean."""
        import tokenizers

        model = tokenizers.Tokenizer.from_str(self._model.to_str())
        model.encode_special_tokens = True
        added, key = self._model.get_added_tokens_decoder(), secrets.token_hex(8)
        names = {i: f"\ue000{key}:{i}\ue001" for i in self.control_ids}
        for i, name in names.items():
            token = tokenizers.AddedToken(name, lstrip=added[i].lstrip, rstrip=added[i].rstrip, normalized=False)
            model.add_tokens([token])
        known = model.get_vocab(with_added_tokens=True)
        return model, names, {known[name]: i for i, name in names.items()}

    def decode(self, ids: Iterable[int]) -> str:
        # The library itself leaves out only some special tokens (not those with `normalized: true`).
        return self._model.decode([i for i in map(int, ids) if i not in self._silent], skip_special_tokens=False)

    def id_of(self, token: str) -> int | None:
        i = self._model.token_to_id(token)
        return self._added.get(token) if i is None else i


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder: `tokenizer.model` (SentencePiece) if present, else `tokenizer.json`.

    BOS stands before every prompt as `add_bos_token` says; where that is missing, as the post-processor of `tokenizer.json`
    does; with SentencePiece alone it does.

    Folders with the same files share one tokenizer, and with it all that was built of it.

    Raises:
      InputError: the folder has neither, one is broken, two contradict each other, a named control token is not in the
        vocabulary, or newlines are lost.
    """
    refuse_stand_ins(folder / name for name in TOKENIZER_FILES)
    files = [folder / name for name in TOKENIZER_FILES]
    digests = {file.name: hashlib.sha256(file.read_bytes()).digest() for file in files if file.is_file()}
    return _load(_Files(tuple(digests.items()), folder))


@dataclasses.dataclass(frozen=True)
class _Files:
    """What a tokenizer is made of; two folders of the same contents have the same one."""

    contents: tuple[tuple[str, bytes], ...]
    folder: Path = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=8)
def _load(files: _Files) -> Tokenizer:
    folder = files.folder
    model, json_form = folder / SENTENCEPIECE_FILE, folder / TOKENIZERS_FILE
    tokenizer: Tokenizer
    if model.is_file() and not is_tiktoken(model):
        path, tokenizer = model, _SentencePieceTokenizer(model)
    elif json_form.is_file():
        path, tokenizer = json_form, _JsonTokenizer(json_form)
    elif model.is_file():
        raise InputError(
            f"{model}: a tiktoken vocabulary, as Llama 3 has it in Meta's own form, not a SentencePiece model; "
            f"copy {TOKENIZERS_FILE} of the Hugging Face form of the checkpoint there"
        )
    else:
        raise InputError(
            f"{folder}: has neither {SENTENCEPIECE_FILE} nor {TOKENIZERS_FILE}; copy the checkpoint's tokenizer files there"
        )
    for line in ("8 9\n", "10 7.5\nA"):
        if (back := tokenizer.decode(tokenizer.encode(line))) != line:
            raise InputError(
                f"{path}: {line!r} comes back as {back!r}, so no verdict could be read; this tokenizer cannot judge"
            )
    return tokenizer


def check_fits(tokenizer: Tokenizer, vocab_size: int, place: Path) -> None:
    """Refuses a tokenizer that gives ids beyond the `vocab_size` rows of a model's embedding.

    Tokens beyond it that `encode` never gives do no harm: published tokenizers name some that the model never had.
    """
    if tokenizer.last_id >= vocab_size:
        raise InputError(
            f"{place}: the tokenizer gives ids up to {tokenizer.last_id} and the model has {vocab_size} tokens; they "
            "do not belong together"
        )
    for name, i in (("begins", tokenizer.bos_id), *(("ends", i) for i in tokenizer.eos_ids)):
        if i is not None and i >= vocab_size:
            raise InputError(
                f"{place}: the tokenizer {name} texts with token {i} and the model has {vocab_size} tokens; they do not belong "
                "together"
            )


def going_on(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text that stands behind another one. Names of control tokens in it are text."""
    before = tokenizer.encode(_BEHIND_THIS)
    both = tokenizer.encode(_BEHIND_THIS + text)
    return both[len(before) :] if both[: len(before)] == before else tokenizer.encode(text)


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a prompt, behind BOS where the tokenizer puts one."""
    return [*([] if tokenizer.bos_id is None else [tokenizer.bos_id]), *tokenizer.encode(prompt)]


def _readable(text: str) -> str:
    return _LONE_SURROGATE.sub("\ufffd", text)


def _named_id(tokenizer: Tokenizer, files: TokenizerFiles, name: str, otherwise: int) -> int | None:
    """The id of `bos_token` or `eos_token` named by the files beside the vocabulary, else `otherwise` (-1: none)."""
    named = files.named(name)
    if named is None:
        return None if otherwise < 0 else otherwise
    file, token = named
    found = tokenizer.id_of(token) if isinstance(token, str) else None
    if found is None:
        raise InputError(f"{file}: {name} is {token!r}, which is not in the vocabulary; fetch the tokenizer files again")
    return found


def _put(tokenizer: Tokenizer, files: TokenizerFiles, beginning: int | None) -> int | None:
    """What stands before every prompt where `add_bos_token` says so, or nothing else is known."""
    puts = files.puts_bos()
    if puts and beginning is None:
        raise InputError(
            f"{files.folder / CONFIG_FILE}: add_bos_token is true, but no bos_token is named; name it or say false"
        )
    return None if puts is False else beginning


def _read_tokenizers(path: Path) -> Any:
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_str(json.dumps(read_json_object(path)))
    except InputError:
        raise
    except Exception as error:  # the library raises nothing more specific
        raise InputError(f"{path}: not a tokenizer ({error}); fetch the checkpoint again") from error
