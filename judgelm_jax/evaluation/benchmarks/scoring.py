"""From a benchmark's labels and judgments of its records to a summary: the score by its own rule, coverage, baselines."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.benchmark import Benchmark, Loaded, Scored
from judgelm_jax.evaluation.joining import Fields, Joined, Judged, join_rows
from judgelm_jax.evaluation.statistics import CONFIDENCE, Interval, question_weights, weighted_interval
from judgelm_jax.evaluation.summary import full_summary
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import identity, question_identity
from judgelm_jax.verdicts import verdicts

Summary = dict[str, Any]

_DRAWS = 500  # of weights of the questions, for a score that is no mean
_TRIVIAL = ("always_first", "always_second", "majority", "longer_answer")


def match(loaded: Loaded, judgments: Iterable[Record]) -> tuple[list[Record | None], int]:
    """The judgment of each label, None where it is missing, and how many judgments belong to no label.

    Raises:
      InputError: two judgments of one id, or none of any.
    """
    rows: dict[str, Record] = {}
    for row in judgments:
        key = identity(row)
        if key in rows:
            raise InputError(f"two judgments have the id {key!r}; keep one")
        rows[key] = row
    keys = [identity(label) for label in loaded.labels]
    aligned = [rows.get(key) for key in keys]
    if all(row is None for row in aligned):
        raise InputError("no judgment has an id of the benchmark; check that the predictions are of this benchmark")
    return aligned, len(rows.keys() - set(keys))


def summarize_benchmark(
    benchmark: Benchmark, loaded: Loaded, judgments: Iterable[Record], *, reduction: str, protocol: str
) -> Summary:
    """The whole summary, in the form of `benchmark --json`.

    `score` and each group's are fractions of 1 over the items judged; `coverage` says how many items there are, how many have a
    label, a judgment, and a judgment that parsed. For pairs whose protocol gives one verdict an item, the metrics of `evaluate`
    of these verdicts, and the agreement of judges that do not read, stand beside the score.
    """
    rule = benchmark.protocols[protocol]
    rows, unlabelled = match(loaded, judgments)
    scored = rule.score(loaded.labels, rows)
    every = range(len(loaded.labels))
    overall = _score(scored, loaded.labels, every) if scored.statistic is None else _drawn_score(scored, loaded.labels)
    groups = _groups(benchmark, loaded, scored)
    summary: Summary = {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "source": benchmark.source,
        "rule": rule.rule,
        "protocol": protocol,
        "reduction": reduction,
        "reduction_rule": benchmark.reductions[reduction],
        **overall,
        "coverage": _coverage(loaded, rows, unlabelled),
        **scored.extra,
        "own_figures": list(scored.extra),
    }
    if groups:
        summary["groups"] = groups
    if scored.decided is not None:
        joined = joined_with(loaded.labels, rows, scored.decided)
        summary["metrics"] = full_summary(joined, Fields(), parser="tolerant", unparsed="wrong")
    return summary | {"baselines": [dataclasses.asdict(baseline) for baseline in benchmark.baselines]}


def _score(scored: Scored, labels: Sequence[Record], chosen: Iterable[int]) -> Summary:
    kept = [index for index in chosen if scored.credits[index] is not None and scored.weights[index] > 0]
    credits = np.array([scored.credits[index] for index in kept], dtype=float)
    weights = np.array([scored.weights[index] for index in kept])
    clusters = [question_identity(labels[index]) for index in kept]
    counts = {"total": len(kept), "questions": len(set(clusters))}
    if not kept:
        return {"score": None, "score_interval": None, **counts}
    value = float(credits @ weights / weights.sum())
    return {"score": value, "score_interval": weighted_interval(credits, weights, clusters), **counts}


def _drawn_score(scored: Scored, labels: Sequence[Record]) -> Summary:
    """The score that is no mean, with the interval of the Bayesian bootstrap over questions (Rubin 1981)."""
    statistic = scored.statistic
    assert statistic is not None
    kept = [index for index, credit in enumerate(scored.credits) if credit is not None]
    clusters = [question_identity(labels[index]) for index in kept]
    names = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    members = [names[cluster] for cluster in clusters]
    value = statistic(np.ones(len(labels)))
    values: list[float] = []
    if value is not None:
        for weights in question_weights(len(names))[:_DRAWS]:
            counts = np.zeros(len(labels))
            counts[kept] = weights[members]
            drawn = statistic(counts)
            values.append(value if drawn is None else drawn)
    return {"score": value, "score_interval": _between(values), "total": len(kept), "questions": len(names)}


def _between(values: Sequence[float]) -> Interval | None:
    """Where 95 % of drawn values lie; None where all are the same, which says that too few questions were seen to know."""
    if len(set(values)) < 2:
        return None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _groups(benchmark: Benchmark, loaded: Loaded, scored: Scored) -> dict[str, Summary]:
    if benchmark.group is None:
        return {}
    members: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(loaded.labels):
        members[str(label.get(benchmark.group))].append(index)
    groups = {name: _score(scored, loaded.labels, indices) for name, indices in members.items()}
    return {name: group for name, group in groups.items() if group["total"]}


def _coverage(loaded: Loaded, rows: Sequence[Record | None], unlabelled: int) -> Summary:
    statuses = Counter(str(row.get("status", "ok")) for row in rows if row is not None)
    return {
        "records": len(loaded.records),
        "without_label": sum(label.get("winner", 0) is None for label in loaded.labels),
        "judged": sum(row is not None for row in rows),
        "missing": sum(row is None for row in rows),
        "unlabelled": unlabelled,
        **{status: statuses[status] for status in verdicts.STATUSES},
        **loaded.counts,
    }


def joined_with(labels: Sequence[Record], rows: Sequence[Record | None], decided: Sequence[Judged | None] | None) -> Joined:
    """Labels of pairs beside their judgments, in the form of `evaluate`, where there are both.

    `decided`: the verdicts that count, by a protocol; None for those of the judgments themselves.
    """
    kept = [
        number
        for number, (label, row) in enumerate(zip(labels, rows, strict=True))
        if row is not None and label["winner"] is not None
    ]
    joined = join_rows([labels[number]["winner"] for number in kept], [row for number in kept if (row := rows[number])])
    predictions = joined.predictions
    if decided is not None:
        named = [decided[number] for number in kept]
        predictions = [
            row if judged is None else dataclasses.replace(row, headline=judged)
            for row, judged in zip(predictions, named, strict=True)
        ]
    people = [tuple(labels[number]["annotators"]) if "annotators" in labels[number] else None for number in kept]
    keys = [identity(labels[number]) for number in kept]
    return dataclasses.replace(joined, predictions=predictions, people=people, keys=keys)


def summary_text(summary: Summary) -> str:
    """The summary for people: score and interval, rule, coverage, groups, and published figures beside it."""
    score, counts = _percent(summary["score"], summary["score_interval"]), f"{summary['total']} items"
    lines = [
        f"{summary['title']} ({summary['source']})",
        f"rule       {summary['rule']}; label: {summary['reduction_rule']}",
        f"score      {score}, {counts}, {summary['questions']} questions",
    ]
    for name, group in summary.get("groups", {}).items():
        lines.append(f"  {name:<28} {_percent(group['score'], group['score_interval'])}, {group['total']} items")
    lines += [f"{name:<10} {_plain(summary[name])}" for name in summary.get("own_figures", ())]
    metrics = summary.get("metrics", {})
    for name in ("precision", "recall", "f1", "consistency", "delta_bias", "total_bias"):
        if metrics.get(name) is not None:
            lines.append(f"{name:<10} {_percent(metrics[name], metrics[f'{name}_interval'])}")
    if metrics.get("kappa") is not None:
        low, high = metrics["kappa_interval"]
        lines.append(f"kappa      {metrics['kappa']:.3f} ({low:.3f} to {high:.3f})")
    people = metrics.get("people")
    if people:
        among, judge = people["people_agreement"], people["judge_agreement"]
        lines.append(
            f"people     agree with each other in {100 * among:.2f} % of pairs, the judge with them in {100 * judge:.2f} %"
        )
    lines.append("coverage   " + ", ".join(f"{name} {count}" for name, count in summary["coverage"].items()))
    trivial = [(name, metrics["baselines"][name]) for name in _TRIVIAL if name in metrics.get("baselines", {})]
    if trivial:
        lines.append("unread     " + ", ".join(f"{name} {100 * value:.2f} %" for name, value in trivial))
    for baseline in summary["baselines"]:
        where = baseline["source"] + (", second hand" if baseline["second_hand"] else "")
        lines.append(f"published  {baseline['judge']}: {baseline['metric']} {100 * baseline['value']:.2f} % ({where})")
    return "\n".join(lines)


def _plain(value: object) -> str:
    """A figure of a benchmark's own, or several by name."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _percent(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "-"
    between = "" if interval is None else f" ({100 * interval[0]:.2f} to {100 * interval[1]:.2f})"
    return f"{100 * value:.2f} %{between}"
