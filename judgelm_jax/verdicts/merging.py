"""Several verdicts on a record merged into one line of the output."""

import dataclasses
from collections.abc import Sequence

from judgelm_jax.errors import InputError
from judgelm_jax.prompts.arrangements import mean_scores, name_of, position_effects, ranking
from judgelm_jax.records.json_lines import Record
from judgelm_jax.verdicts import distributions
from judgelm_jax.verdicts.distributions import Distribution, Factors, Outcomes
from judgelm_jax.verdicts.score_lines import winner_of
from judgelm_jax.verdicts.verdicts import STATUSES, Verdict

# Everything that `judgment` may add to a record, in any mode.
OUTPUT_FIELDS = (
    "pred_text",
    "pred_id",
    "pred_model_id",
    "tstamp",
    "pred_preset",
    "status",
    "scores",
    "winner",
    "order",
    "consistent",
    "truncated",
    "finish",
    "explanation",
    "forward",
    "reversed",
    "probabilities",
    "expected_scores",
    "entropy",
    "covered_mass",
    "position_bias",
    "calibrated",
    "ranking",
    "arrangements",
    "position_effects",
    "score_probabilities",
    "reference_used",
    "soft_score",
    "alternatives",
    "factorized",
    "ranked_by",
    "strengths",
    "pairs",
)


def kept(record: Record, keep_as: str | None = None) -> Record:
    """The record as its judgment holds it: unchanged, or with `keep_as` before the names that the judgment takes.

    Raises:
      InputError: a field has a name that the judgment takes, and there is no `keep_as`, or the new name is taken, too. The
        message has no place.
    """
    taken = [name for name in record if name in OUTPUT_FIELDS]
    if not taken:
        return record
    if keep_as is None:
        raise InputError(
            f"the field {taken[0]!r} is one that the judgment has, too; rename it, or pass --keep_as=input_ to keep it as "
            f"'input_{taken[0]}'"
        )
    for name in taken:
        if keep_as + name in record or keep_as + name in OUTPUT_FIELDS:
            raise InputError(
                f"the field {name!r} cannot be kept as {keep_as + name!r}, a name that is taken; give --keep_as another value"
            )
    return {keep_as + name if name in taken else name: value for name, value in record.items()}


def judgment(
    record: Record,
    verdict: Verdict | Sequence[Verdict],
    *,
    more: Record | None = None,
    keep_as: str | None = None,
    pred_id: str,
    pred_model_id: str,
    tstamp: float,
    pred_preset: str | None = None,
) -> Record:
    """The output row: the input record as `kept` gives it, the verdict, and the fields of `more`.

    Verdicts on several arrangements are merged: scores are the mean, the winner follows from it (or from the mean
    distribution; of labels that contradict one another it is a tie), the status is the worst, `pred_text` that of the first.
    Without scores in one of them there are none in the merged row.

    Raises:
      InputError: as `kept`.
    """
    row = dict(kept(record, keep_as))
    verdicts = (verdict,) if isinstance(verdict, Verdict) else tuple(verdict)
    row |= {
        "pred_text": verdicts[0].pred_text,
        "pred_id": pred_id,
        "pred_model_id": pred_model_id,
        "tstamp": tstamp,
    }
    if pred_preset is not None:
        row["pred_preset"] = pred_preset
    fields = _pair_fields if len(verdicts[0].order) == 2 else _arrangement_fields
    return row | fields(verdicts) | (more or {})


def _pair_fields(verdicts: Sequence[Verdict]) -> Record:
    if len(verdicts) == 1:
        return {**_fields(verdicts[0]), "order": name_of(verdicts[0].order)}
    forward, back = verdicts
    fields: Record = {**_fields(_merge(verdicts)), "order": "both"}
    fields["consistent"] = forward.winner is not None and forward.winner == back.winner
    if forward.distribution is not None and back.distribution is not None:
        fields["position_bias"] = distributions.position_bias(forward.distribution, back.distribution)
    return fields | {"forward": _fields(forward), "reversed": _fields(back)}


def _arrangement_fields(verdicts: Sequence[Verdict]) -> Record:
    """The fields of any number of answers but two: in one arrangement or several, their form is the same."""
    merged = _merge(verdicts)
    fields: Record = {**_fields(merged), "order": "arrangements"}
    if len(merged.order) > 1:
        fields["ranking"] = None if merged.scores is None else ranking(merged.scores)
    fields["arrangements"] = [{"order": list(verdict.order), **_fields(verdict)} for verdict in verdicts]
    if len(verdicts) > 1:
        scores = [verdict.scores for verdict in verdicts if verdict.scores is not None]
        complete = len(scores) == len(verdicts)
        fields["position_effects"] = position_effects(scores, [one.order for one in verdicts]) if complete else None
    return fields


def _merge(verdicts: Sequence[Verdict]) -> Verdict:
    first = verdicts[0]
    if len(verdicts) == 1:
        return first
    scores, winner, distribution = None, None, None
    of_all = [verdict.scores for verdict in verdicts if verdict.scores is not None]
    if len(of_all) == len(verdicts):
        scores = mean_scores(of_all)
        winner = winner_of(scores)
    elif all(verdict.scores is None and verdict.winner is not None for verdict in verdicts):
        winners = {verdict.winner for verdict in verdicts}
        winner = winners.pop() if len(winners) == 1 else 0  # labels that contradict one another are a tie
    found = [verdict.distribution for verdict in verdicts if verdict.distribution is not None]
    if len(found) == len(verdicts):
        distribution = distributions.mean(found)
        winner = distribution.winner()
        if len(first.order) == 2:
            scores = distribution.most_likely()
    return dataclasses.replace(
        first,
        status=max((verdict.status for verdict in verdicts), key=STATUSES.index),
        scores=scores,
        winner=winner,
        finish="length" if any(verdict.finish == "length" for verdict in verdicts[1:]) else first.finish,
        truncated=tuple(max(of_answer) for of_answer in zip(*(verdict.truncated for verdict in verdicts), strict=True)),
        distribution=distribution,
    )


def _fields(verdict: Verdict) -> Record:
    fields: Record = {
        "pred_text": verdict.pred_text,
        "status": verdict.status,
        "scores": None if verdict.scores is None else list(verdict.scores),
        "winner": verdict.winner,
        "finish": verdict.finish,
        "explanation": verdict.explanation,
        "truncated": list(verdict.truncated),
    }
    alone = len(verdict.order) == 1  # nobody wins
    if alone:
        del fields["winner"]
    found = verdict.distribution
    if found is not None:
        if alone and not isinstance(found, Outcomes):
            fields |= _grades(found)
        else:
            fields["probabilities"] = found.outcomes()
        if not isinstance(found, Outcomes):
            fields["expected_scores"] = found.expected_scores()
        fields |= {"entropy": found.entropy(), "covered_mass": found.covered_mass}
        if isinstance(found, Factors):
            fields["factorized"] = True
    return fields


def _grades(distribution: Distribution | Factors) -> Record:
    """The probability of each score that a single answer may get, by the score as it is written."""
    pairs = zip(distribution.values, distribution.probabilities, strict=True)
    return {"score_probabilities": {f"{value:g}": float(probability) for value, probability in pairs}}
