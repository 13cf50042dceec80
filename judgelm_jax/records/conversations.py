"""Two chats about the same questions, as one pair of answers: turn by turn. Imports no JAX.

A record has `conversation_1` and `conversation_2`, lists of messages with `role` and `content`: user and assistant in turn, the
same user's messages in both, perhaps behind a `system` message. `references`: one text, or null, for each turn.
"""

import dataclasses
from collections.abc import Sequence

from judgelm_jax.errors import InputError
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import check_reference, question_identity

LAST, ALL = "last", "all"
TURNS = (LAST, ALL)
_FIELDS = ("conversation_1", "conversation_2")
# Ours, in no published weights: what is judged where turns come before the last one.
_ONLY_THE_LAST = "[Only the replies to the last turn are judged; earlier ones are shown as context.]"
_LEFT_OUT = "[earlier turns left out]"


@dataclasses.dataclass(frozen=True)
class Turn:
    """What the user said, both replies, and a reference reply where there is one."""

    user: str
    replies: tuple[str, str]
    reference: str | None


@dataclasses.dataclass(frozen=True)
class Rendered:
    """Question, answers and reference of a pair prompt."""

    question: str
    answers: tuple[str, str]
    reference: str | None


def check_conversations(record: Record) -> None:
    """Raises an `InputError` without place where a record does not have two chats, or its reference is no text."""
    question_identity(record)
    if "question_body" in record and not any(field in record for field in _FIELDS):
        raise InputError("this record has no conversation_1 and conversation_2; judge it with another --kind, such as pair")
    turns_of(record)
    if "conversation_3" in record:
        raise InputError("there are 3 conversations or more where 2 are judged; remove 'conversation_3' and those after it")
    check_reference(record)


def turns_of(record: Record) -> tuple[str, list[Turn]]:
    """The system's message ("" without one), and the turns.

    Raises:
      InputError: a chat is missing or is no chat, or the two do not go together. The message has no place.
    """
    (system, chat), (other_system, other) = (_chat(record, field) for field in _FIELDS)
    if system != other_system or [user for user, _ in chat] != [user for user, _ in other]:
        raise InputError(
            "the users (or the systems) of conversation_1 and conversation_2 say different things; give chats of one user"
        )
    references = record.get("references")
    if references is None:
        references = [None] * len(chat)
    if not isinstance(references, list) or not all(text is None or isinstance(text, str) for text in references):
        raise InputError("the field 'references' is no list of texts or nulls, one for each turn")
    if len(references) != len(chat):
        raise InputError(f"there are {len(references)} references for {len(chat)} turns; give one for each, or null")
    pairs = zip(chat, other, references, strict=True)
    return system, [Turn(user, (one, two), reference) for (user, one), (_, two), reference in pairs]


def replies_of(record: Record) -> list[str]:
    """What each of two assistants said, over all turns; empty where the record has no chats."""
    if not all(isinstance(record.get(field), list) for field in _FIELDS):
        return []
    chats = (_chat(record, field)[1] for field in _FIELDS)
    return ["\n\n".join(reply for _, reply in chat) for chat in chats]


def render(system: str, turns: Sequence[Turn], judged: str, left_out: int = 0) -> Rendered:
    """The chats as a pair; one turn is the plain pair. `judged`: `last` or `all`. `left_out`: how many of the oldest turns."""
    shown, first = turns[left_out:], left_out + 1
    parts = [f"[System]\n{system}"] if system else []
    parts += [_LEFT_OUT] if left_out else []
    parts.append(rendered([turn.user for turn in shown], first))
    parts += [_ONLY_THE_LAST] if judged == LAST and len(turns) > 1 else []
    one, two = (rendered([turn.replies[side] for turn in shown], first) for side in (0, 1))
    return Rendered("\n\n".join(parts), (one, two), rendered([turn.reference for turn in shown], first) or None)


def rendered(turns: Sequence[str | None], first: int = 1) -> str:
    """The texts of one side, turn by turn: each under the line `[Turn N]`, with an empty line between them; one alone as it is.

    A question is the rendering of what the user said, an answer that of what the assistant said, so that turn N of the answer
    stands under the same number as turn N of the question. `first`: the number of the first. Turns without a text are left out.
    """
    if len(turns) == 1 and first == 1:
        return turns[0] or ""
    return "\n\n".join(f"[Turn {number}]\n{text}" for number, text in enumerate(turns, start=first) if text is not None)


def messages(questions: Sequence[str], answers: Sequence[str]) -> list[dict[str, str]]:
    """The conversation as a list of `role` and `content`, as the fields `conversation_1` and `conversation_2` hold it."""
    pairs = zip(questions, answers, strict=True)
    return [
        {"role": role, "content": text}
        for question, answer in pairs
        for role, text in (("user", question), ("assistant", answer))
    ]


def _chat(record: Record, field: str) -> tuple[str, list[tuple[str, str]]]:
    """The system's message, and of each turn what the user and the assistant said."""
    messages = record.get(field)
    if not isinstance(messages, list) or not messages:
        raise InputError(f"the field {field!r} is no list of messages with 'role' and 'content'; give one")
    said: list[tuple[str, str]] = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InputError(f"{field}: message {number} is no object with 'role' and 'content'")
        text = message.get("content")
        if not isinstance(text, str) or not (text.strip() or message["role"] == "assistant"):  # a model may say nothing
            raise InputError(f"{field}: message {number} is empty, or its 'content' is no text; give its text")
        said.append((message["role"], message["content"]))
    system = said.pop(0)[1] if said[0][0] == "system" else ""
    expected = ["user", "assistant"] * (len(said) // 2 + 1)
    for number, ((role, _), wanted) in enumerate(zip(said, expected, strict=False), start=1 + bool(system)):
        if role != wanted:
            raise InputError(
                f"{field}: message {number} is of the role {role!r} where {wanted!r} comes next; user and assistant take turns"
            )
    if not said or len(said) % 2:
        raise InputError(f"{field}: ends without a reply of the assistant; leave out the last message, or give the reply")
    return system, [(said[place][1], said[place + 1][1]) for place in range(0, len(said), 2)]
