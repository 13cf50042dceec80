"""`judgelm_jax.evaluate`: the metrics of the command `judgelm-evaluate`, from Python."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from judgelm_jax.evaluation.joining import DECISIONS, PARSERS, Fields, Source, join
from judgelm_jax.evaluation.outcomes import Summary
from judgelm_jax.evaluation.summary import full_summary

# A file of JSON Lines, its rows, or the judgments that a `Judge` yields.
Rows = str | Path | Iterable[Any]


def evaluate(
    labels: Rows | None,
    judgments: Rows,
    *,
    against: Rows | None = None,
    repeated: Sequence[Rows] = (),
    cluster: str = "question_id",
    by: str | None = None,
    decide: str = "winner",
    parser: str = "tolerant",
    unparsed: str = "wrong",
    risk: float | None = None,
    width: float | None = None,
) -> Summary:
    """How good and how fair a judge is: what `judgelm-evaluate --json` writes.

    Args:
      labels: rows with an id and `winner`, `text` or `score`; None: what needs no labels.
      judgments: what the judge said of the same records, in any order.
      against, repeated, cluster, by, decide, parser, unparsed, risk, width: as the flags of the command.

    Raises:
      InputError: a row that is none, two rows of one id, no id in common.
      ValueError: an argument that is none of the choices.
    """
    for name, value, choices in (
        ("decide", decide, DECISIONS),
        ("parser", parser, PARSERS),
        ("unparsed", unparsed, ("wrong", "exclude", "tie")),
    ):
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
    fields = Fields(cluster, by)
    known = None if labels is None else _source(labels)

    def joined(rows: Rows) -> Any:
        return join(known, _source(rows), None, parser, decide=decide, fields=fields)

    return full_summary(
        joined(judgments),
        fields,
        parser=parser,
        unparsed=unparsed,
        against=None if against is None else joined(against),
        repeated=[joined(rows) for rows in repeated],
        risk=risk,
        width=width,
    )


def _source(rows: Rows) -> Source:
    if isinstance(rows, str | Path):
        return Path(rows)
    given: Iterable[Any] = rows
    return [row if isinstance(row, dict) else row.row for row in given]
