"""Conversations of several turns as one question and one answer, for judges that read pairs."""

from collections.abc import Sequence

Message = dict[str, str]


def rendered(turns: Sequence[str]) -> str:
    """The texts of one side, turn by turn: each under the line `[Turn N]`, with an empty line between them; one alone as it is.

    A question is the rendering of what the user said, an answer that of what the assistant said, so that turn N of the answer
    stands under the same number as turn N of the question.
    """
    if len(turns) == 1:
        return turns[0]
    return "\n\n".join(f"[Turn {number}]\n{text}" for number, text in enumerate(turns, start=1))


def messages(questions: Sequence[str], answers: Sequence[str]) -> list[Message]:
    """The conversation as a list of `role` and `content`, as the fields `conversation_1` and `conversation_2` hold it."""
    pairs = zip(questions, answers, strict=True)
    return [
        {"role": role, "content": text}
        for question, answer in pairs
        for role, text in (("user", question), ("assistant", answer))
    ]
