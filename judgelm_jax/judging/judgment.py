"""One judged record, as Python sees it. Imports no JAX."""

import dataclasses
import html
from typing import Any

from judgelm_jax.records.json_lines import Record


@dataclasses.dataclass(frozen=True, repr=False)
class Judgment:
    """One judged record; `row` is the line that the command writes (its fields are described in judging/README.md).

    It prints as a small card, in notebooks as a table, and pickles.
    """

    row: Record

    @property
    def scores(self) -> list[float] | None:
        """One score an answer, in the record's own order."""
        return self.row["scores"]

    @property
    def winner(self) -> int | None:
        """1..N; 0: a tie; None: there are no scores, or one answer alone."""
        return self.row.get("winner")

    @property
    def ranking(self) -> list[list[int]] | None:
        """Of more than two answers: groups of equal ones by their numbers, the best first."""
        return self.row.get("ranking")

    @property
    def probabilities(self) -> dict[str, float] | None:
        """Mode `distribution`: of the outcomes, "1", "2" and "0" for a tie; else None."""
        return self.row.get("probabilities")

    @property
    def explanation(self) -> str:
        """The text behind the score line (of the forward order, where both were judged)."""
        return self.row["explanation"]

    @property
    def status(self) -> str:
        """`ok`, `truncated`, `unparsed` or `overflow`."""
        return self.row["status"]

    def to_dict(self) -> Record:
        """A copy of the row."""
        return dict(self.row)

    def __repr__(self) -> str:
        width = max(map(len, (name for name, _ in self._lines())))
        return "\n".join(f"{name:<{width}}  {text}" for name, text in self._lines())

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in self._lines())
        return f"<table>{rows}</table>"

    def _lines(self) -> list[tuple[str, str]]:
        lines = [("verdict", self._verdict())]
        if self.scores is not None:
            lines.append(("scores", ", ".join(f"{score:g}" for score in self.scores)))
        if self.row.get("expected_scores") is not None:
            lines.append(("expected", ", ".join(f"{score:.2f}" for score in self.row["expected_scores"])))
        if self.probabilities is not None:
            lines.append(("probabilities", ", ".join(f"{_outcome(k)} {p:.1%}" for k, p in sorted(self.probabilities.items()))))
        if self.row.get("consistent") is not None:
            lines.append(("both orders", "name the same winner" if self.row["consistent"] else "name different winners"))
        if self.status != "ok":
            lines.append(("status", self.status))
        if self.explanation:
            lines.append(("reason", _short(self.explanation)))
        return lines

    def _verdict(self) -> str:
        if self.ranking is not None:
            return " > ".join(" = ".join(map(str, group)) for group in self.ranking)
        if self.winner is not None:
            return _outcome(str(self.winner))
        return "none" if self.scores is None else f"{self.scores[0]:g}"


def _outcome(winner: str) -> str:
    return "tie" if winner == "0" else f"answer {winner}"


def _short(text: Any, most: int = 200) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"
