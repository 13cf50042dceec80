"""Answers that do not fit into one prompt, judged two by two: every pair in both orders, a ranking by Bradley–Terry strengths.

Imports no JAX.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from judgelm_jax.kinds import Case
from judgelm_jax.prompts.arrangements import mean_scores, ranking
from judgelm_jax.records.json_lines import Record
from judgelm_jax.verdicts.verdicts import STATUSES, Verdict

_SAME = 6  # decimals to which strengths are compared: equal ones are found by steps that end nearby


def cases(case: Case) -> tuple[Case, ...]:
    """A case of two answers for every two of this one's."""
    return tuple(dataclasses.replace(case, answers=pair) for pair in itertools.combinations(case.answers, 2))


def conclude(answers: int, by_pair: Sequence[Sequence[Verdict]]) -> tuple[Sequence[Verdict], Record]:
    """The verdict on several answers from those on all pairs, in the order of `cases`, and the fields that say how it was made.

    A score is the mean of an answer's scores over all of its pairs and orders. The ranking goes by strengths (log-odds, mean 0)
    under which these pairs end most likely as they did: each order of a pair is a game, its result the winner, or in mode
    `distribution` the probability of winning and half that of a tie.
    """
    pairs = list(itertools.combinations(range(answers), 2))
    judged = [(pair, verdict) for pair, own in zip(pairs, by_pair, strict=True) for verdict in own]
    verdicts = [verdict for _, verdict in judged]
    first = verdicts[0]
    removed = [[0] * answers for _ in judged]
    for row, (pair, verdict) in zip(removed, judged, strict=True):
        for number, tokens in zip(pair, verdict.truncated, strict=True):
            row[number] = tokens
    more: Record = {
        "order": "pairs",
        "ranked_by": "bradley_terry",
        "ranking": None,
        "strengths": None,
        "arrangements": [],
        "pairs": [
            {
                "answers": [number + 1 for number in pair],
                "scores": None if verdict.scores is None else list(verdict.scores),
                "winner": _winner(pair, verdict),
                "order": [pair[number - 1] + 1 for number in verdict.order],
                "status": verdict.status,
            }
            for pair, verdict in judged
        ],
    }
    scores, winner = None, None
    of_all = [verdict.scores for verdict in verdicts if verdict.scores is not None]
    if len(of_all) == len(verdicts):
        scores = _means(answers, [pair for pair, _ in judged], of_all)
        strengths = _strengths(answers, judged)
        more |= {"ranking": ranking(strengths), "strengths": list(strengths)}
        best = more["ranking"][0]
        winner = best[0] if len(best) == 1 else 0
    found = [verdict.distribution for verdict in verdicts if verdict.distribution is not None]
    expected = [means for distribution in found if (means := distribution.expected_scores()) is not None]
    if expected and scores is not None:
        more["expected_scores"] = list(_means(answers, [pair for pair, _ in judged], expected))
    merged = Verdict(
        max((verdict.status for verdict in verdicts), key=STATUSES.index),
        scores,
        winner,
        tuple(range(1, answers + 1)),
        first.pred_text,
        first.explanation,
        "length" if any(verdict.finish == "length" for verdict in verdicts) else first.finish,
        tuple(max(column) for column in zip(*removed, strict=True)),
    )
    return (merged,), more


def _winner(pair: tuple[int, ...], verdict: Verdict) -> int | None:
    """The number of the answer that wins, 0 for a tie."""
    return pair[verdict.winner - 1] + 1 if verdict.winner else verdict.winner


def _means(answers: int, pairs: Sequence[tuple[int, ...]], scores: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Of each answer, the mean of the scores that it has in its pairs."""
    own: list[list[float]] = [[] for _ in range(answers)]
    for pair, of_pair in zip(pairs, scores, strict=True):
        for number, score in zip(pair, of_pair, strict=True):
            own[number].append(score)
    return tuple(mean_scores([[score] for score in values])[0] for values in own)


def _strengths(answers: int, judged: Sequence[tuple[tuple[int, ...], Verdict]]) -> tuple[float, ...]:
    from judgelm_jax.evaluation.ranking.bradley_terry import point  # late: scipy takes as long as a tenth of a judge's start

    firsts, seconds = (np.array([pair[side] for pair, _ in judged]) for side in (0, 1))
    found = point(firsts, seconds, np.array([_result(verdict) for _, verdict in judged]), answers)
    return tuple(round(float(strength), _SAME) + 0.0 for strength in found)  # + 0.0: no -0.0


def _result(verdict: Verdict) -> float:
    """Of a pair, what the first answer of the record's order won: 1, 0, or 0.5 of a tie."""
    if verdict.distribution is not None:
        outcomes = verdict.distribution.outcomes()
        return outcomes["1"] + outcomes["0"] / 2
    return {1: 1.0, 2: 0.0}.get(verdict.winner or 0, 0.5)
