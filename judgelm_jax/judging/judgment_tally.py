"""What a file of judgments holds, counted: statuses, consistency, how far the verdicts follow the position, and whether the
judge would write score lines at all."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.records.json_lines import Record, read_jsonl
from judgelm_jax.verdicts.verdicts import STATUSES

# Shares from which a summary warns, and the pairs that it takes. In both orders no fair judge nearly always prefers one
# position. In one order the answers shown first may be the better ones, so more is asked for.
_BOTH_ORDERS, _ONE_ORDER = (0.8, 20), (0.95, 100)
_LOW_MASS = 0.1  # of `covered_mass`: a judge of this kind of prompt writes a score line nearly always


@dataclasses.dataclass(frozen=True)
class Positions:
    """Pairs with a winner in each order that was judged (ties count among the `pairs`), and in how many of them the answer
    shown first, or second, wins in all of these orders."""

    pairs: int
    first: int
    second: int
    both_orders: bool

    def warning(self) -> str | None:
        """One line where nearly all pairs follow the position; else None."""
        share, least = _BOTH_ORDERS if self.both_orders else _ONE_ORDER
        most, place = max((self.first, "first"), (self.second, "second"))
        if self.pairs < least or most < share * self.pairs:
            return None
        found = f"the answer shown {place} wins {'in both orders ' if self.both_orders else ''}in {most} of {self.pairs} pairs"
        if self.both_orders:
            return (
                f"{found}: these verdicts follow the position, not the answers; do not rank by them, take another judge or "
                "train this one with swap augmentation"
            )
        return f"{found}: these answers are the better ones, or the verdicts follow the position; --orders=both tells which"


def judgments(path: Path) -> Iterator[Record]:
    """The judgments of a file.

    Raises:
      InputError: a line that holds none.
    """
    for number, row in read_jsonl(path):
        orders = [row, *(row.get(name) for name in ("forward", "reversed") if row.get("order") == "both")]
        if row.get("order") == "arrangements":
            known = isinstance(row.get("arrangements"), list)
        else:
            known = all(isinstance(order, dict) and "winner" in order for order in orders)
        if row.get("status") not in STATUSES or not known:
            raise InputError(f"{path}:{number}: is no judgment; give a file that judgelm-judge wrote, or choose another name")
        yield row


class Tally:
    """Counts judgments. Its size does not grow with their number."""

    def __init__(self, rows: Iterable[Record] = ()):
        self._statuses: collections.Counter[str] = collections.Counter()
        self._orders: collections.Counter[str] = collections.Counter()
        # By whether both orders were judged, and the position that wins in all that were (0: none does).
        self._places: collections.Counter[tuple[bool, int]] = collections.Counter()
        self._effects: dict[
            int, list[float]
        ] = {}  # by the number of answers: sums of the effects of positions, and their number
        self._masses: collections.Counter[bool] = collections.Counter()  # by whether `covered_mass` is low
        for row in rows:
            self.add(row)

    def add(self, row: Record) -> None:
        """Counts one judgment."""
        self._statuses[row["status"]] += 1
        if row.get("covered_mass") is not None:
            self._masses[row["covered_mass"] < _LOW_MASS] += 1
        order = row.get("order")
        if order == "both":
            forward, back = row["forward"]["winner"], row["reversed"]["winner"]
            if forward is None or back is None:
                self._orders["without_winner"] += 1
                return
            self._orders["consistent" if forward == back else "inconsistent"] += 1
            places = {_place(forward, "forward"), _place(back, "reversed")}
            self._places[True, places.pop() if len(places) == 1 else 0] += 1
        elif order in ("forward", "reversed") and row.get("winner") is not None:
            self._places[False, _place(row["winner"], order)] += 1
        elif (effects := row.get("position_effects")) is not None:
            before = self._effects.get(len(effects), [0.0] * (len(effects) + 1))
            self._effects[len(effects)] = [total + one for total, one in zip(before, [*effects, 1], strict=True)]

    def summary(self) -> dict[str, Any]:
        """Counts of `STATUSES`; where rows were judged in both orders `consistent`, `inconsistent` and `without_winner` (an
        order names none: its text did not parse, or the prompt did not fit), which add up to these rows; and where pairs were
        judged `position`: `pairs`, `shown_first_wins`, `shown_second_wins` (fractions of these pairs) and `warning`. Where
        records of N answers were shown in several arrangements `position_effects`: by N, the number of `records`, and the mean
        `effects`. Of distributions `covered_mass`: the number of `judgments`, of those where it is `low`, and `warning`.
        """
        counts: dict[str, Any] = {status: self._statuses[status] for status in STATUSES}
        if self._orders:
            counts |= {name: self._orders[name] for name in ("consistent", "inconsistent", "without_winner")}
        if self._places:
            both = any(in_both for in_both, _ in self._places)
            total = sum(count for (in_both, _), count in self._places.items() if in_both == both)
            found = Positions(total, self._places[both, 1], self._places[both, 2], both)
            counts["position"] = {
                "pairs": total,
                "shown_first_wins": found.first / total,
                "shown_second_wins": found.second / total,
                "warning": found.warning(),
            }
        if self._effects:
            counts["position_effects"] = {
                str(answers): {"records": int(count), "effects": [total / count for total in totals]}
                for answers, (*totals, count) in sorted(self._effects.items())
            }
        if self._masses:
            low, total = self._masses[True], self._masses.total()
            counts["covered_mass"] = {"judgments": total, "low": low, "warning": _mass_warning(low, total)}
        return counts


def _mass_warning(low: int, total: int) -> str | None:
    """One line where most probabilities are of what the judge would hardly write; else None."""
    if 2 * low <= total:
        return None
    return (
        f"in {low} of {total} judgments any score line has a probability below {_LOW_MASS} (covered_mass): the judge was "
        "hardly trained for prompts of this kind, so its probabilities say little"
    )


def _place(winner: int, order: str) -> int:
    """Where the winner of a pair was shown: 1 or 2; 0 of a tie."""
    return winner if order == "forward" or winner == 0 else 3 - winner
