"""A summary of `evaluate` as text for people: what it means in plain words first, then the numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from judgelm_jax.evaluation.position_bias import follow_position
from judgelm_jax.verdicts import verdicts

Summary = dict[str, Any]

_COUNTS = ("total", *verdicts.STATUSES, "labels_dropped", "missing", "unlabelled", "pairs", "unparsed_reversed")
_PARTS = {
    "baselines": "judges that do not read",
    "people": "people among themselves, and the judge with them",
    "scores": "scores beside the teacher's",
    "length": "length of answers",
    "few_labels": "what labels on all records would say",
    "stability": "judged again",
    "decisions": "agreement, by how a distribution becomes a winner",
    "against": "against the other judgments",
}
FOLLOWS_POSITION = "These verdicts follow the position, not the answers: do not rank by them."
_NAMES = {"1": "first", "2": "second", "0": "tie", "none": "none"}


def in_plain_words(summary: Summary) -> str:
    """A few sentences: agreement beside the best trivial judge, consistency and position, wins, what the intervals mean."""
    return "\n".join(
        line
        for line in (
            _agreement_words(summary),
            _order_words(summary),
            _people_words(summary.get("people")),
            _win_words(summary),
            _few_labels_words(summary.get("few_labels")),
            _risk_words(summary.get("risk")),
            _against_words(summary.get("against")),
            _interval_words(summary),
            _loss_words(summary),
        )
        if line
    )


def metrics_table(summary: Summary) -> str:
    """The summary as aligned text: fractions with their intervals, then the counts."""
    lines = [f"{'metric':<24}{'value':>8}   95 % interval", *_rows(summary)]
    for title, heading in _PARTS.items():
        if summary.get(title):
            lines += ["", heading, *_rows(summary[title])]
    if summary.get("confusion"):
        lines += ["", *_confusion_lines(summary["confusion"])]
    if summary.get("models"):
        lines += ["", f"{'model':<24}{'win rate':>8}   95 % interval      wins  ties  losses"]
        lines += [
            f"{_short(model):<24}{row['win_rate']:>8.4f}   {_between(row['win_rate_interval']):<16}"
            f"{row['wins']:>7}{row['ties']:>6}{row['losses']:>8}"
            for model, row in summary["models"].items()
        ]
    if summary.get("groups"):
        lines += ["", *_group_lines(summary)]
    lines += ["", f"parser {summary['parser']}; a judgment without a winner counts as: {summary['unparsed_policy']}"]
    lines.append("   ".join(f"{name} {summary[name]}" for name in _COUNTS if name in summary))
    return "\n".join(lines)


def _rows(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in summary:
        if f"{name}_interval" in summary:
            value, interval = summary[name], summary[f"{name}_interval"]
            lines.append(f"{name:<24}{'-' if value is None else f'{value:.4f}':>8}   {_between(interval)}")
        elif name.endswith("_p"):
            lines.append(f"{name:<24}{summary[name]:>8.4f}")
    return lines


def _between(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _confusion_lines(confusion: Mapping[str, Mapping[str, int]]) -> list[str]:
    columns = list(next(iter(confusion.values())))
    lines = [f"{'label / verdict':<24}" + "".join(f"{_NAMES[column]:>8}" for column in columns)]
    return lines + [f"{_NAMES[row]:<24}" + "".join(f"{value:>8}" for value in confusion[row].values()) for row in confusion]


def _group_lines(summary: Summary) -> list[str]:
    """One line a group: its size, and the headline figures that it has."""
    columns = [name for name in ("agreement", "consistency", "first_wins", "tie_rate") if name in summary]
    lines = [f"{_short(str(summary['by'])):<24}{'total':>7}" + "".join(f"   {name:<25}" for name in columns)]
    for group, row in summary["groups"].items():
        shown = ["-" if row[name] is None else f"{row[name]:.4f} ({_between(row[f'{name}_interval'])})" for name in columns]
        lines.append(f"{_short(group):<24}{row['total']:>7}" + "".join(f"   {value:<25}" for value in shown))
    return [line.rstrip() for line in lines]


def _short(text: str) -> str:
    """At most 23 characters, none of them a control character."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable if len(printable) <= 23 else printable[:22] + "…"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _range(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" (95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f} %)"


def _agreement_words(summary: Summary) -> str:
    if summary.get("agreement") is None:
        return ""
    line = f"The judge agrees with the labels on {_percent(summary['agreement'])} of {summary['total']} records"
    line += f"{_range(summary['agreement_interval'])}."
    trivial = summary.get("baselines", {})
    if not trivial:
        return line
    best = trivial["best"]
    clear = trivial["ahead_of_best_p"] < 0.05
    verdict = "not clearly different from" if not clear else "better than" if trivial["ahead_of_best"] > 0 else "worse than"
    return f"{line} That is {verdict} the best judge that does not read, {best!r}: {_percent(trivial[best])}."


def _order_words(summary: Summary) -> str:
    if summary.get("consistency") is None:
        return ""
    line = (
        f"With the answers exchanged it names the same winner in {_percent(summary['consistency'])} of {summary['pairs']} pairs"
    )
    line += f"{_range(summary['consistency_interval'])}"
    first, second = summary["bias_first"], summary["bias_second"]
    side = "first" if first >= second else "second"
    even = summary["delta_bias_interval"] is None or summary["delta_bias_interval"][0] <= 0
    if first + second == 0:
        return f"{line}; no pair shows a preference for a position."
    if even:
        return f"{line}; neither position is clearly preferred (first {_percent(first)}, second {_percent(second)})."
    line = f"{line}; otherwise it prefers the answer shown {side} (first {_percent(first)}, second {_percent(second)})."
    pairs = summary["pairs"]
    return f"{line} {FOLLOWS_POSITION}" if follow_position(first * pairs, second * pairs, pairs) else line


def _people_words(people: Summary | None) -> str:
    if not people:
        return ""
    line = (
        f"On {people['records']} records people agree with each other in {_percent(people['people_agreement'])} of pairs, "
        f"the judge with them in {_percent(people['judge_agreement'])}."
    )
    test = people["alternative_test"]
    if test["winning_rate"] is None:
        return line
    may = "may" if test["passes"] else "may not"
    return (
        f"{line} By the alternative-annotator test it {may} stand in for one of them (it wins over "
        f"{_percent(test['winning_rate'])} of the annotators, ε = {test['epsilon']})."
    )


def _win_words(summary: Summary) -> str:
    if summary.get("first_wins") is None:
        return ""
    line = (
        f"Its verdicts: the first answer wins {_percent(summary['first_wins'])}, "
        f"the second {_percent(summary['second_wins'])}, {_percent(summary['tie_rate'])} are ties."
    )
    models = summary.get("models", {})
    if not models:
        return line
    best, row = next(iter(models.items()))
    return f"{line} The highest win rate has {_short(best)!r}: {_percent(row['win_rate'])}{_range(row['win_rate_interval'])}."


def _few_labels_words(few: Summary | None) -> str:
    if not few or few["first_wins"] is None:
        return ""
    line = (
        f"From {few['labelled']} labels and {few['unlabelled']} more judgments: labels on all records would let the first "
        f"answer win {_percent(few['first_wins'])}{_range(few['first_wins_interval'])}, a tie counting half"
    )
    if few["first_wins_weight"] == 0:
        return f"{line}; here the judge adds nothing to the labels."
    line += f"; for this your judge is worth ×{few['first_wins_worth']:.1f} labels"
    needed = few.get("first_wins_labels_needed")
    return f"{line}; the wished width takes about {needed} labels in all." if needed is not None else f"{line}."


def _risk_words(risk: Summary | None) -> str:
    if not risk:
        return ""
    wished = f"wrong in at most {_percent(risk['target'])}"
    if risk["threshold"] is None:
        return f"No threshold of sureness can be shown to leave verdicts that are {wished}: too few labels, or too many errors."
    signal = "probability of the winner" if risk["signal"] == "probability" else "gap of scores"
    return (
        f"Verdicts with a {signal} of at least {risk['threshold']:.4g} are {wished} (with 95 % confidence): "
        f"{_percent(risk['coverage'])} of the records, {_percent(risk['error'])} of them wrong here."
    )


def _against_words(against: Summary | None) -> str:
    if not against:
        return ""
    line = f"On {against['records']} records in both files the verdict is the same in {_percent(against['same_verdict'] or 0)}"
    if against.get("difference") is None:
        return line + "."
    low, high = against["difference_interval"]
    clear = "a difference beyond chance" if low > 0 or high < 0 else "which chance may explain"
    return (
        f"{line}; agreement with the labels differs by {100 * against['difference']:+.1f} points "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}), {clear}."
    )


def _interval_words(summary: Summary) -> str:
    total, clusters, field = summary["total"], summary["clusters"], summary.get("cluster_field", "question_id")
    if not total:
        return ""
    without = summary.get("without_cluster_field", 0)
    if without == summary.get("looked_at", -1):
        return f"Intervals take all {total} records as independent: none has the field {field!r}, so each counts by its own id."
    line = f"Intervals are by {field}: {clusters} clusters among {total} records"
    if summary.get("design_effect") is not None and clusters < total:
        line += f" (the variance of the agreement is {summary['design_effect']:.1f} times that of independent records)"
    return f"{line}; {without} records without the field count each by its own id." if without else f"{line}."


def _loss_words(summary: Summary) -> str:
    lost = summary["unparsed"] + summary["overflow"]
    dropped = summary["labels_dropped"]
    words = []
    if lost:
        words.append(f"{lost} judgments have no winner")
    if summary["truncated"]:
        words.append(f"{summary['truncated']} were judged on shortened answers")
    if dropped:
        out = summary.get("labels_out_of_range", 0)
        words.append(f"{dropped} labels were dropped" + (f", {out} of them out of range" if out else ""))
    return "; ".join(words) + "." if words else ""
