"""Figures of a report: drawn with matplotlib once for light and once for dark pages, as SVG, and as PNG for papers."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np

from judgelm_jax.evaluation.report.rows import Row

# Record text (names of models, fields) is drawn as it is: never as mathematics, which it could break.
_STYLE = {
    "text.parse_math": False,
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "judgelm",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}
_LIGHT = {"ink": "#1b1f24", "paper": "#ffffff", "accent": "#1f6feb", "faint": "#d0d7de"}
_DARK = {"ink": "#e6edf3", "paper": "#0d1117", "accent": "#58a6ff", "faint": "#30363d"}
_LONGEST_NAME = 28
_HIGHEST = 10  # score that a judge gives


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawn figure: its file name, what it shows in words (also for those who cannot see it), and its bytes."""

    name: str
    title: str
    caption: str
    light: bytes
    dark: bytes
    png: bytes


Draw = Callable[[Any, dict[str, str]], None]  # axes of a figure, and the colours


def figure(name: str, title: str, caption: str, size: tuple[float, float], draw: Draw) -> Figure:
    """Draws a figure of `size` inches in both colour schemes."""
    light, dark = (_svg(size, draw, colours) for colours in (_LIGHT, _DARK))
    return Figure(name, title, caption, light, dark, _rendered(size, draw, _LIGHT, "png"))


def ranking_figure(ranking: dict[str, Any]) -> Figure:
    """Strength of each model with its interval, best on top."""
    models = ranking["models"][::-1]

    def draw(axes: Any, colours: dict[str, str]) -> None:
        values = np.array([model["strength"] for model in models])
        low, high = np.array([model["strength_interval"] for model in models]).T
        axes.errorbar(
            values, range(len(models)), xerr=[np.maximum(values - low, 0), np.maximum(high - values, 0)], fmt="o",
            color=colours["accent"], capsize=3,
        )  # fmt: skip
        axes.set_yticks(range(len(models)), [short(model["name"]) for model in models])
        axes.axvline(0, color=colours["faint"], linewidth=1, zorder=0)
        axes.set_xlabel("strength, log-odds (95 % interval)")

    caption = "Strength of each model (Bradley–Terry), with 95 % intervals by question. 0 is the average of the models."
    return figure("ranking", "Ranking", caption, (6.4, 1.1 + 0.32 * len(models)), draw)


def matrix_figure(ranking: dict[str, Any]) -> Figure:
    """The share that the row's model won against the column's."""
    names = [model["name"] for model in ranking["models"]]
    values = np.array([[ranking["matrix"][a].get(b, np.nan) for b in names] for a in names])

    def draw(axes: Any, colours: dict[str, str]) -> None:
        _heat_map(
            axes, values, [short(name) for name in names], [short(name) for name in names], "RdBu", (0, 1), "{:.0%}", colours
        )
        axes.set_xticks(range(len(names)), [short(name) for name in names], rotation=40, ha="right", rotation_mode="anchor")

    size = 1.8 + 0.55 * len(names)
    caption = "Share of comparisons that the row's model won against the column's; a tie counts half."
    return figure("win-rates", "Win rates", caption, (size, size), draw)


def confusion_figure(confusion: dict[str, dict[str, int]]) -> Figure:
    """Verdicts of the judge by label."""
    names = {"1": "first", "2": "second", "0": "tie", "none": "none"}
    values = np.array([[float(cell) for cell in row.values()] for row in confusion.values()])
    columns = [names.get(name, name) for name in next(iter(confusion.values()))]

    def draw(axes: Any, colours: dict[str, str]) -> None:
        shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
        _heat_map(axes, shares, [names.get(name, name) for name in confusion], columns, "Blues", (0, 1), "", colours, values)
        axes.set_xlabel("verdict of the judge")
        axes.set_ylabel("label")

    return figure("confusion", "Verdicts and labels", "How many records with each label got each verdict.", (4.6, 3.2), draw)


def consistency_figure(rows: Sequence[Row]) -> Figure | None:
    """The share of pairs with one winner in both orders, by the gap between the two scores."""
    gaps = [
        (abs(scores[0] - scores[1]), "inconsistent" not in row.marks)
        for row in rows
        if {"forward", "reversed"} <= set(row.orders) and _has_two(scores := row.scores)
    ]
    if len(gaps) < 10:
        return None
    gap, same = np.array([g for g, _ in gaps], float), np.array([s for _, s in gaps], float)
    edges = [0, 0.5, 1, 2, 3, 5, np.inf]
    which = np.digitize(gap, edges) - 1
    kept = [bin for bin in range(len(edges) - 1) if (which == bin).any()]
    labels = [f"{edges[b]:g} to {edges[b + 1]:g}" if edges[b + 1] < np.inf else f"{edges[b]:g} or more" for b in kept]

    def draw(axes: Any, colours: dict[str, str]) -> None:
        shares, counts = [same[which == b].mean() for b in kept], [(which == b).sum() for b in kept]
        bars = axes.bar(range(len(kept)), shares, color=colours["accent"])
        axes.bar_label(bars, [f"n={count}" for count in counts], color=colours["ink"], fontsize=8)
        axes.set_xticks(range(len(kept)), labels)
        axes.set_ylim(0, 1.1)
        axes.set_xlabel("difference of the two scores")
        axes.set_ylabel("same winner in both orders")

    caption = "How often the same answer wins in both orders, by how close the call is."
    return figure("consistency", "Consistency", caption, (5.4, 3.2), draw)


def score_figure(rows: Sequence[Row]) -> Figure | None:
    """How often each pair of scores was given, in either order."""
    orders = {
        name: np.array([scores for row in rows if _are_drawn(scores := row.orders.get(name, {}).get("scores"))], float)
        for name in ("forward", "reversed")
    }
    orders = {name: scores for name, scores in orders.items() if len(scores)}
    if not orders:
        return None

    def draw(axes: Any, colours: dict[str, str]) -> None:
        parts = axes.figure.subplots(1, len(orders), sharey=True, squeeze=False)[0]
        axes.remove()
        for part, (name, scores) in zip(parts, orders.items(), strict=True):
            edges = np.arange(-0.5, _HIGHEST + 1)
            counts = np.histogram2d(scores[:, 1], scores[:, 0], [edges, edges])[0]
            part.imshow(np.log1p(counts), origin="lower", cmap="Blues", extent=(-0.5, _HIGHEST + 0.5) * 2)
            part.plot([0, _HIGHEST], [0, _HIGHEST], color=colours["faint"], linewidth=1)
            part.set_title(f"shown {name}", fontsize=9, color=colours["ink"])
            part.set_xlabel("score of answer 1")
        parts[0].set_ylabel("score of answer 2")

    caption = "Darker: more records. Below the line answer 1 won. A cloud that moves with the order shows a bias."
    return figure("scores", "Scores in both orders", caption, (3.2 * len(orders) + 0.4, 3.3), draw)


def reliability_figure(rows: Sequence[Row]) -> Figure | None:
    """How often the verdict is right, by the probability that the judge gave it."""
    said = [
        (row.probabilities[row.winner - 1 if row.winner else -1], row.winner == row.label)
        for row in rows
        if row.probabilities is not None and row.label is not None and row.winner is not None
    ]
    if len(said) < 20:
        return None
    sure, right = np.array([p for p, _ in said]), np.array([hit for _, hit in said], float)
    edges = np.quantile(sure, np.linspace(0, 1, min(10, len(said) // 10) + 1))
    which = np.clip(np.searchsorted(edges, sure, side="right") - 1, 0, len(edges) - 2)
    bins = [b for b in range(len(edges) - 1) if (which == b).any()]

    def draw(axes: Any, colours: dict[str, str]) -> None:
        axes.plot([0, 1], [0, 1], color=colours["faint"], linewidth=1)
        axes.plot(
            [sure[which == b].mean() for b in bins], [right[which == b].mean() for b in bins], "o-", color=colours["accent"]
        )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("probability of the verdict, as the judge sees it")
        axes.set_ylabel("share that agrees with the label")

    caption = "On the line the judge is as sure as it is right; below it, surer. Each dot stands for equally many records."
    return figure("reliability", "Reliability", caption, (4.2, 3.8), draw)


def short(name: str) -> str:
    """A name of at most 28 characters."""
    plain = " ".join(name.split())
    return plain if len(plain) <= _LONGEST_NAME else plain[: _LONGEST_NAME - 1] + "…"


def _are_drawn(scores: Any) -> bool:
    return _has_two(scores) and all(0 <= score <= _HIGHEST for score in scores)


def _has_two(scores: Any) -> TypeGuard[list[float]]:
    return isinstance(scores, list) and len(scores) == 2 and None not in scores


def _heat_map(
    axes: Any, values: np.ndarray, rows: list[str], columns: list[str], cmap: str, limits: tuple[float, float], form: str,
    colours: dict[str, str], shown: np.ndarray | None = None,
) -> None:  # fmt: skip
    """A table of coloured cells, with the numbers of `shown` (default: `values` in the form `form`) written into them."""
    axes.imshow(values, cmap=cmap, vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        text = form.format(value) if shown is None else f"{shown[row, column]:.0f}"
        middle = cmap == "RdBu" and 0.25 < value < 0.75
        dark = value > 0.5 if cmap == "Blues" else not middle
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="#ffffff" if dark else "#1b1f24")


def _svg(size: tuple[float, float], draw: Draw, colours: dict[str, str]) -> bytes:
    return _rendered(size, draw, colours, "svg")


def _rendered(size: tuple[float, float], draw: Draw, colours: dict[str, str], form: str) -> bytes:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    ink = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), colours["ink"])
    with mpl.rc_context({**_STYLE, **ink, "axes.facecolor": colours["paper"], "figure.facecolor": colours["paper"]}):
        canvas = Canvas(figsize=size)
        FigureCanvasAgg(canvas)
        draw(canvas.subplots(), colours)
        buffer = io.BytesIO()
        canvas.savefig(buffer, format=form, dpi=200, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()
