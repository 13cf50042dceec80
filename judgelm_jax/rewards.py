"""Judges as reward functions, in the form that TRL's trainers take (`reward_funcs`). Imports neither JAX nor TRL.

trainer = trl.GRPOTrainer(model, reward_funcs=win_rate_reward(judge), ...)
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from judgelm_jax.records.json_lines import Record

# A text, or the messages of a conversation.
Text = str | Sequence[Mapping[str, Any]]


class JudgesPairs(Protocol):
    """What is needed of a `Judge`, loaded with `orders="both"`."""

    def judge(self, records: Iterable[Record]) -> Iterator[Any]: ...


def win_rate_reward(judge: JudgesPairs, reference: str | None = None) -> Callable[..., list[float]]:
    """A reward function: the mean probability with which a completion wins over the others of its group.

    Args:
      judge: judges all pairs of a group, in both orders; in mode `distribution` with probabilities, else by its winner.
      reference: the column of the data set with a reference answer, if any.

    Returns `f(prompts, completions, **columns) -> list[float]`, rewards from 0 to 1 in the order of the completions. A group
    is the completions of one prompt (with one reference). A tie counts half, and so does a judgment without a verdict and
    a completion that is alone.
    """

    def judge_win_rate(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
        references = columns.get(reference) if reference is not None else None
        if reference is not None and references is None:
            raise ValueError(f"the data set has no column {reference!r}; it has {', '.join(sorted(columns))}")
        groups: dict[tuple[str, str | None], list[int]] = {}
        for number, prompt in enumerate(prompts):
            own = None if references is None or references[number] is None else _text(references[number])
            groups.setdefault((_text(prompt), own), []).append(number)
        answers = [_text(completion) for completion in completions]
        records, pairs = [], []
        for group, ((prompt, own), members) in enumerate(groups.items()):
            for first, second in itertools.combinations(members, 2):
                pairs.append((first, second))
                record: Record = {
                    "question_id": group,
                    "pair_id": f"{first}-{second}",
                    "question_body": prompt,
                    "answer1_body": answers[first],
                    "answer2_body": answers[second],
                }
                records.append(record if own is None else {**record, "reference": own})
        won: list[list[float]] = [[] for _ in completions]
        for (first, second), judgment in zip(pairs, judge.judge(records), strict=True):
            probability = first_wins(judgment.row)
            won[first].append(probability)
            won[second].append(1 - probability)
        return [sum(rates) / len(rates) if rates else 0.5 for rates in won]

    return judge_win_rate


def first_wins(judgment: Record) -> float:
    """The probability that the first of two answers wins; a tie counts half."""
    probabilities = judgment.get("probabilities")
    if probabilities is not None:
        return float(probabilities["1"] + probabilities["0"] / 2)
    winner = judgment.get("winner")
    return 1.0 if winner == 1 else 0.0 if winner == 2 else 0.5


def _text(text: Text) -> str:
    """A conversation of one message is its text; of several, each turn after who says it."""
    if isinstance(text, str):
        return text
    if len(text) == 1:
        return str(text[0]["content"])
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in text)
