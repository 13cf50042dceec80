"""What a report says, before it has a form: sentences, tables, figures, and the records to look through."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from judgelm_jax.evaluation.joining import Joined
from judgelm_jax.evaluation.plain_text import in_plain_words
from judgelm_jax.evaluation.ranking import text as ranking_text
from judgelm_jax.evaluation.report import figures
from judgelm_jax.evaluation.report.rows import Row, best_of, browser_rows
from judgelm_jax.evaluation.statistics import proportion_interval
from judgelm_jax.records.json_lines import Record

_MOST_VALUES = 30  # of a field that is worth a table of groups
_MOST_FIELDS = 8


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts; the first column names its rows."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Content:
    """A whole report. `data` is what `report.json` holds."""

    title: str
    sentences: list[str]
    tables: list[Table]
    figures: list[figures.Figure]
    rows: list[Row]
    data: dict[str, Any]


def judge_report(
    title: str,
    judgments: Sequence[Record],
    joined: Joined,
    summary: dict[str, Any],
    ranking: dict[str, Any] | None = None,
    about: Sequence[str] = (),
) -> Content:
    """How good and how fair a judge is.

    Args:
      title: of the page.
      judgments: the rows of the judgment file.
      joined: them beside their labels, if there are any.
      summary: of `evaluate`.
      ranking: of the models behind the answers, where the judgments name them.
      about: sentences to begin with, such as a benchmark's own result.
    """
    rows = browser_rows(judgments, joined)
    sentences = [*about, *in_plain_words(summary).splitlines()]
    tables = [_metrics_table(summary)]
    drawn: list[figures.Figure | None] = []
    if ranking is not None:
        sentences.append(ranking_text.in_words(ranking))
        tables.append(_ranking_table(ranking))
        drawn += [figures.ranking_figure(ranking), figures.matrix_figure(ranking)]
    if summary.get("confusion"):
        drawn.append(figures.confusion_figure(summary["confusion"]))
    drawn += [figures.consistency_figure(rows), figures.score_figure(rows), figures.reliability_figure(rows)]
    tables += _group_tables(rows, joined)
    data = {"title": title, "summary": summary, "ranking": ranking}
    return Content(title, sentences, tables, [figure for figure in drawn if figure is not None], rows, data)


def ranking_report(title: str, judgments: Sequence[Record], ranking: dict[str, Any]) -> Content:
    """Which model is better, and how sure that is."""
    unjoined = Joined(None, [], labels_dropped=0, missing=0, unlabelled=0)
    rows = browser_rows(judgments, unjoined)
    drawn = [
        figures.ranking_figure(ranking),
        figures.matrix_figure(ranking),
        figures.consistency_figure(rows),
        figures.score_figure(rows),
    ]
    tables = [_ranking_table(ranking), _above_table(ranking), _next_table(ranking)]
    for value, group in ranking.get("groups", {}).items():
        tables.append(dataclasses.replace(_ranking_table(group), title=f"Ranking where {ranking['by']} is {value}"))
    sentences = [ranking_text.in_words(ranking)]
    shown = [figure for figure in drawn if figure is not None]
    return Content(title, sentences, tables, shown, rows, {"title": title, "ranking": ranking})


def _metrics_table(summary: dict[str, Any]) -> Table:
    rows = []
    parts = [("", summary), *((f"{name}: ", summary[name]) for name in ("baselines", "against") if summary.get(name))]
    for prefix, part in parts:
        rows += [
            [prefix + name.replace("_", " "), _number(part[name]), _between(part[f"{name}_interval"])]
            for name in part
            if f"{name}_interval" in part
        ]
    note = (
        f"{summary['total']} records of {summary.get('clusters', summary['total'])} questions; intervals are 95 %, by question."
    )
    return Table("Metrics", ["metric", "value", "95 % interval"], rows, note)


def _ranking_table(ranking: dict[str, Any]) -> Table:
    rows = [
        [
            str(model["rank"]),
            model["name"],
            ranking_text.percent(model["win_rate"]),
            " to ".join(map(ranking_text.percent, model["win_rate_interval"])),
            f"{model['strength']:+.2f}",
            " to ".join(f"{value:+.2f}" for value in model["strength_interval"]),
            " to ".join(dict.fromkeys(map(str, model["rank_interval"]))),
        ]
        for model in ranking["models"]
    ]
    header = ["rank", "model", "win rate", "95 % interval", "strength", "95 % interval", "rank between"]
    note = f"{ranking['comparisons']} comparisons on {ranking['clusters']} questions; a tie is half a win."
    return Table("Ranking", header, rows, note)


def _above_table(ranking: dict[str, Any]) -> Table:
    names = [model["name"] for model in ranking["models"]]
    rows = [[a, *(ranking_text.percent(ranking["above"][a][b]) if a != b else "" for b in names)] for a in names]
    return Table("In how many resamples the row's model is stronger", ["", *names], rows)


def _next_table(ranking: dict[str, Any]) -> Table:
    rows = [
        [
            " and ".join(pair["models"]),
            ranking_text.percent(pair["above"]),
            "cannot be said" if pair["needed"] is None else str(pair["needed"]),
        ]
        for pair in ranking["next_comparisons"]
    ]
    return Table("What to compare next", ["models", "order is right in", "comparisons more for 97.5 %"], rows)


def _group_tables(rows: Sequence[Row], joined: Joined) -> list[Table]:
    """Agreement and consistency for each value of every field that has a few values."""
    clusters = dict(zip(joined.keys, joined.clusters(), strict=True))
    kept = [row for row in rows if row.id in clusters]
    values: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in kept:
        for name, value in row.fields.items():
            values[name][value].append(row)

    def share(hits: list[tuple[Row, bool]]) -> list[str]:
        if not hits:
            return ["-", "-"]
        right = [float(hit) for _, hit in hits]
        return [_number(sum(right) / len(right)), _between(proportion_interval(right, [clusters[row.id] for row, _ in hits]))]

    tables = []
    for name, groups in values.items():
        if not 2 <= len(groups) <= _MOST_VALUES or len(groups) == len(kept):
            continue
        lines = []
        for value, members in sorted(groups.items(), key=lambda item: -len(item[1])):
            agreeing = share([(row, row.winner == row.label) for row in members if row.label is not None])
            consistent = share([(row, _same(row)) for row in members if len(row.orders) > 1])
            lines.append([value, str(len(members)), *agreeing, *consistent])
        header = [name, "records", "agreement", "95 % interval", "consistency", "95 % interval"]
        tables.append(Table(f"By {name}", header, lines))
    return tables[:_MOST_FIELDS]


def _same(row: Row) -> bool:
    """Whether every order that was shown names the same answers best."""
    best = [best_of(order) for order in row.orders.values()]
    return None not in best and len(set(best)) == 1


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _between(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
