"""The rules by which benchmarks score the judging of pairs: what each verdict, or each two verdicts, earn against a label."""

from collections.abc import Callable, Sequence

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.benchmark import Protocol, Scored
from judgelm_jax.evaluation.joining import Judged, Prediction, join_rows
from judgelm_jax.records.json_lines import Record

Decide = Callable[[Prediction], Judged]
Credit = Callable[[int, Prediction], float]

_NONE = Judged("unparsed", None)


def agreement(orders: str, rule: str, decide: Decide, credit: Credit | None = None) -> Protocol:
    """A protocol with one verdict an item. It earns 1 where it names the label's winner, else 0, unless `credit` says
    otherwise.

    A verdict that does not parse names no winner and earns 0.
    """
    earned = credit or (lambda winner, row: float(decide(row).winner == winner))
    return Protocol(orders, rule, lambda labels, rows: _score(labels, rows, earned, decide))


def credited(orders: str, rule: str, credit: Credit) -> Protocol:
    """A protocol that gives each item a credit and no single verdict."""
    return Protocol(orders, rule, lambda labels, rows: _score(labels, rows, credit, None))


def forward(row: Prediction) -> Judged:
    """The verdict of the game in the record's own order."""
    return _game(row.forward, "forward")


def conflict_is_tie(row: Prediction) -> Judged:
    """The verdict of both games where they agree; a tie where they do not. None where one has no verdict."""
    one, other = _game(row.forward, "forward"), _game(row.reversed, "reversed")
    if one.winner is None or other.winner is None:
        return _NONE
    return one if one.winner == other.winner else Judged("ok", 0)


def mean_of_both(row: Prediction) -> Judged:
    """The merged verdict: of the mean of the scores of both games."""
    _game(row.reversed, "reversed")
    return row.headline


def mean_credit(winner: int, row: Prediction) -> float:
    """The share of the two games that name the label's winner."""
    games = (_game(row.forward, "forward"), _game(row.reversed, "reversed"))
    return sum(game.winner == winner for game in games) / 2


def both_right(winner: int, row: Prediction) -> float:
    """1 where both games name the label's winner."""
    return float(mean_credit(winner, row) == 1)


def positive_sum(winner: int, row: Prediction) -> float:
    """Each game adds 1 where it names the label's winner and takes 1 where it names the other; 1 where the sum is positive."""
    total = 0
    for game in (_game(row.forward, "forward"), _game(row.reversed, "reversed")):
        total += (game.winner == winner) - (game.winner == 3 - winner)
    return float(total > 0)


def half_for_tie(decide: Decide) -> Credit:
    """1 where the verdict names the label's winner, a half where it is a tie."""

    def credit(winner: int, row: Prediction) -> float:
        named = decide(row).winner
        return 0.0 if named is None else 1.0 if named == winner else 0.5 if named == 0 else 0.0

    return credit


def _game(judged: Judged | None, order: str) -> Judged:
    if judged is None:
        raise InputError(
            f"the protocol needs judgments of the {order} order and a row has none; judge with --orders=both, or choose "
            "another --protocol"
        )
    return judged


def _score(labels: Sequence[Record], rows: Sequence[Record | None], credit: Credit, decide: Decide | None) -> Scored:
    present = [row for row in rows if row is not None]
    predictions = iter(join_rows([0] * len(present), present).predictions)
    aligned = [None if row is None else next(predictions) for row in rows]
    usable = [None if label["winner"] is None else row for label, row in zip(labels, aligned, strict=True)]
    credits = [None if row is None else credit(label["winner"], row) for label, row in zip(labels, usable, strict=True)]
    decided = None if decide is None else [None if row is None else decide(row) for row in usable]
    return Scored(credits, [1.0] * len(labels), decided)
