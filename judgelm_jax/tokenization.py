"""Text ⇄ token ids with the checkpoint's own tokenizer files, and prompts that fit a budget of tokens.

Text from records is data: `</s>`, `<s>` and `<|eot_id|>` inside it are ordinary characters, never control tokens.
"""

import abc
import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from judgelm_jax import prompts
from judgelm_jax.errors import InputError

SENTENCEPIECE_FILE = "tokenizer.model"
TOKENIZERS_FILE = "tokenizer.json"
VOCABULARY_FILES = (SENTENCEPIECE_FILE, TOKENIZERS_FILE)
# All that belongs to a tokenizer; `load_tokenizer` reads no other files.
TOKENIZER_FILES = (*VOCABULARY_FILES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
SHORTENED = "\n[shortened]"

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer(abc.ABC):
    """Text ⇄ ids. Holds no state that changes, so threads may share it.

    `bos_id` is None for a vocabulary without one; `eos_ids` are those that the tokenizer's files name;
    `vocab_size` counts the ids that `decode` knows (the embedding of a model may have more rows).
    """

    bos_id: int | None
    eos_ids: tuple[int, ...]
    vocab_size: int

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without BOS. Lone surrogates, which UTF-8 does not have, count as U+FFFD."""

    @abc.abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on the threads of the library."""

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
        return self._cut(text, self.encode(text), tokens)[0]

    def _cut(self, text: str, ids: list[int], tokens: int) -> tuple[str, int]:
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

        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path}: not a SentencePiece model ({error}); fetch the checkpoint again") from error
        self.vocab_size = self._model.vocab_size()
        self._silent = frozenset(i for i in range(self.vocab_size) if self._model.is_control(i) or self._model.is_unknown(i))
        added = _read_object(path.parent / "added_tokens.json")
        self._added = {name: i for name, i in added.items() if isinstance(i, int)}
        self.bos_id = _named_id(self, path.parent, "bos_token", self._model.bos_id())
        eos_id = _named_id(self, path.parent, "eos_token", self._model.eos_id())
        self.eos_ids = () if eos_id is None else (eos_id,)

    def encode(self, text: str) -> list[int]:
        return self._model.encode(_readable(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._model.encode([_readable(text) for text in texts])

    def decode(self, ids: Iterable[int]) -> str:
        return self._model.decode([i for i in map(int, ids) if i < self.vocab_size and i not in self._silent])

    def id_of(self, token: str) -> int | None:
        i = self._model.piece_to_id(token)
        return i if self._model.id_to_piece(i) == token else self._added.get(token)


class _JsonTokenizer(Tokenizer):
    def __init__(self, path: Path) -> None:
        import tokenizers

        try:
            self._model = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more specific
            raise InputError(f"{path}: not a tokenizer ({error}); fetch the checkpoint again") from error
        self._model.encode_special_tokens = True
        self._model.no_truncation()
        self._model.no_padding()
        # The library itself leaves out only some of these when it decodes (not those with `normalized: true`).
        self._silent = frozenset(i for i, token in self._model.get_added_tokens_decoder().items() if token.special)
        self.vocab_size = self._model.get_vocab_size(with_added_tokens=True)
        first = self._model.encode("").ids[:1]  # what the tokenizer itself puts before any text
        self.bos_id = _named_id(self, path.parent, "bos_token", first[0] if first else -1)
        eos_id = _named_id(self, path.parent, "eos_token", -1)
        self.eos_ids = () if eos_id is None else (eos_id,)

    def encode(self, text: str) -> list[int]:
        return self._model.encode(_readable(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        batch = [_readable(text) for text in texts]
        return [encoding.ids for encoding in self._model.encode_batch(batch, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        return self._model.decode([i for i in map(int, ids) if i not in self._silent])

    def id_of(self, token: str) -> int | None:
        return self._model.token_to_id(token)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder: `tokenizer.model` (SentencePiece) if present, else `tokenizer.json`.

    Raises:
      InputError: the folder has neither, one is broken, or a named control token is not in the vocabulary.
    """
    if (folder / SENTENCEPIECE_FILE).is_file():
        return _SentencePieceTokenizer(folder / SENTENCEPIECE_FILE)
    if (folder / TOKENIZERS_FILE).is_file():
        return _JsonTokenizer(folder / TOKENIZERS_FILE)
    raise InputError(
        f"{folder}: has neither {SENTENCEPIECE_FILE} nor {TOKENIZERS_FILE}; copy the tokenizer files of the checkpoint there"
    )


@dataclasses.dataclass(frozen=True)
class FittedPrompt:
    """A rendered prompt: its `ids`, BOS first where there is one, and how many tokens were cut from each answer."""

    ids: list[int]
    removed: tuple[int, ...]


def fit_prompt(
    tokenizer: Tokenizer,
    kind: str,
    question: str,
    answers: Sequence[str],
    reference: str | None,
    budget: int,
    marker: str = SHORTENED,
) -> FittedPrompt | None:
    """Renders a prompt of at most `budget` ids; where it would have more, shortens answers from their end.

    Answers are cut to one common length in tokens, the largest that fits, and `marker` follows each one that is
    cut; shorter answers stay whole. Instruction, question and reference are never cut. None: not even empty
    answers (with their markers) fit.
    """
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]

    def ids_of(texts: Sequence[str]) -> list[int]:
        return begin + tokenizer.encode(prompts.render(kind, question, texts, reference))

    whole = ids_of(answers)
    if len(whole) <= budget:
        return FittedPrompt(whole, (0,) * len(answers))
    encoded = [tokenizer.encode(answer) for answer in answers]

    def shortened(length: int) -> FittedPrompt:
        texts, removed = [], []
        for answer, ids in zip(answers, encoded, strict=True):
            text, kept = tokenizer._cut(answer, ids, length)
            removed.append(len(ids) - kept)
            texts.append(text if len(ids) <= length else text + marker)
        return FittedPrompt(ids_of(texts), tuple(removed))

    # The prompt grows with the common length, but for one thing: an answer that becomes whole loses its marker.
    # So the stretches between the answers' own lengths are searched one by one, the longest first.
    lengths = sorted({0, *map(len, encoded)})
    for shortest, next_longer in zip(lengths[-2::-1], lengths[:0:-1], strict=True):
        if shortest > budget:
            continue
        best = shortened(shortest)
        if len(best.ids) > budget:
            continue
        cut = sum(len(ids) > shortest for ids in encoded)
        fits, too_long = shortest, min(next_longer, budget + 1)
        while too_long - fits > 1:
            # Each token more of the common length costs about one token in each answer that is cut.
            length = min(fits + max(1, (budget - len(best.ids)) // cut), too_long - 1)
            trial = shortened(length)
            if len(trial.ids) <= budget:
                fits, best = length, trial
            else:
                too_long = length
        return best
    return None


def _readable(text: str) -> str:
    return _LONE_SURROGATE.sub("\ufffd", text)


def _named_id(tokenizer: Tokenizer, folder: Path, name: str, otherwise: int) -> int | None:
    """The id of `bos_token` or `eos_token` named by the files beside the vocabulary, else `otherwise` (-1: none)."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        token: Any = _read_object(folder / file).get(name)
        if isinstance(token, dict):
            token = token.get("content")
        if not token:
            continue
        found = tokenizer.id_of(token) if isinstance(token, str) else None
        if found is None:
            raise InputError(
                f"{folder / file}: {name} is {token!r}, which is not in the vocabulary; fetch the tokenizer files again"
            )
        return found
    return None if otherwise < 0 else otherwise


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty when there is no such file."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no JSON object; fetch the checkpoint again")
    return values
