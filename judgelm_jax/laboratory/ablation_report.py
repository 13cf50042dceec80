"""An ablation as text, Markdown and a plot, beside the published numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from judgelm_jax.laboratory.ablation import DROP, METRICS, NONE, SUPPORT, SWAP, TECHNIQUES, Cell, Summary

# What is published of the ablation of JudgeLM-7B, in percent, by cell and metric, and where it was read. The tables of the
# paper itself (arXiv 2310.17631) have more; what was not read in a source stands as a dash.
PUBLISHED: dict[Cell, dict[str, tuple[float, str]]] = {
    Cell(NONE, False): {"agreement": (75.87, "b"), "consistency": (73.45, "b")},
    Cell(SWAP, False): {"consistency": (78.89, "b")},
    Cell(SUPPORT, True): {"agreement": (80.15, "c"), "consistency": (81.23, "c")},
    Cell(DROP, False): {"agreement": (81.11, "a"), "consistency": (83.57, "a")},
    Cell(DROP, True): {"agreement": (84.08, "a"), "consistency": (84.46, "a")},
}
SOURCES = {
    "a": "README of github.com/baaivision/JudgeLM: the released JudgeLM-7B, all techniques, 100,000 training records",
    "b": "second hand, from readers' notes on arXiv 2310.17631: 7B, 3,500 training records",
    "c": "second hand, from one reader's notes on arXiv 2310.17631, which do not say whether swap augmentation was on",
}

_HEADINGS = {
    "agreement": "agreement",
    "agreement_reference_only": "reference-only",
    "consistency": "consistency",
    "bias_first": "bias first",
    "bias_second": "bias second",
    "delta_bias": "delta bias",
}
_WITH = {False: "without", True: "with"}


def text(summary: Summary) -> str:
    """The tables for a terminal."""
    header, rows = _table(summary)
    claims = [_claim_lines(claim) for claim in summary["claims"]]
    lines = [*_aligned([header, *rows]), "", *_notes(summary), ""]
    for heading, differences in claims:
        lines += [heading, *(f"    {line}" for line in differences)]
    return "\n".join(lines)


def markdown(summary: Summary) -> str:
    """The tables in GitHub's Markdown."""
    header, rows = _table(summary)
    lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
    lines += ["", *(f"- {note}" for note in _notes(summary)), ""]
    for heading, differences in map(_claim_lines, summary["claims"]):
        lines += [f"**{heading}**", "", *(f"- {line}" for line in differences), ""]
    return "\n".join(lines)


def plot(summary: Summary, path: Path) -> None:
    """Writes a PNG: one panel a metric, the techniques side by side, each judged without and with reference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = ("agreement", "agreement_reference_only", "consistency", "delta_bias")
    # Colours that people with any kind of colour vision tell apart (Okabe & Ito 2008); the marker says the same again.
    styles = {False: ("#0072B2", "o", -0.12), True: ("#D55E00", "s", 0.12)}
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, metric in zip(figure.subplots(2, 2).flat, shown, strict=True):
        for reference, (colour, marker, shift) in styles.items():
            cells = [cell for cell in summary["cells"] if cell["reference"] == reference]
            places = [TECHNIQUES.index(cell["technique"]) + shift for cell in cells]
            values = [100 * cell[metric] for cell in cells]
            low, high = zip(*(cell[f"{metric}_interval"] for cell in cells), strict=True)
            errors = [
                [max(0.0, value - 100 * end) for value, end in zip(values, low, strict=True)],
                [max(0.0, 100 * end - value) for value, end in zip(values, high, strict=True)],
            ]
            axes.errorbar(
                places, values, yerr=errors, fmt=marker, color=colour, capsize=4, label=f"judged {_WITH[reference]} reference"
            )
            published = [
                (TECHNIQUES.index(cell.technique) + shift, numbers[metric][0])
                for cell, numbers in PUBLISHED.items()
                if cell.reference == reference and metric in numbers
            ]
            if published:
                axes.plot(*zip(*published, strict=True), "D", markerfacecolor="none", color=colour, alpha=0.6)
        axes.set_title("agreement on reference-only facts" if metric == "agreement_reference_only" else _HEADINGS[metric])
        axes.set_xticks(range(len(TECHNIQUES)), ["\n".join(name.rsplit(" ", 1)) for name in TECHNIQUES])
        axes.set_ylim(-3, 103)
        axes.set_ylabel("%")
        axes.grid(axis="y", alpha=0.3)
    axes = figure.axes[0]
    axes.plot([], [], "D", markerfacecolor="none", color="0.4", label="published, JudgeLM-7B")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"Training techniques of a judge, each with those before it; {_extent(summary)}, 95 % intervals")
    figure.savefig(path, dpi=120)


def _table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    header = ["trained with", "judged"]
    for metric, heading in _HEADINGS.items():
        header += [heading] + (["published"] if _is_published(metric) else [])
    rows = []
    for cell in summary["cells"]:
        key = Cell(cell["technique"], cell["reference"])
        row = ["" if cell["reference"] else cell["technique"], _WITH[cell["reference"]] + (" !" if cell["mismatched"] else "")]
        for metric in METRICS:
            low, high = cell[f"{metric}_interval"]
            row.append(f"{100 * cell[metric]:.1f} ({100 * low:.1f} to {100 * high:.1f})")
            if _is_published(metric):
                value, source = PUBLISHED.get(key, {}).get(metric, (None, ""))
                row.append("-" if value is None else f"{value:.2f} [{source}]")
        rows.append(row)
    return header, rows


def _is_published(metric: str) -> bool:
    return any(metric in numbers for numbers in PUBLISHED.values())


def _notes(summary: Summary) -> list[str]:
    return [
        f"percent, with 95 % intervals over {_extent(summary)}; each technique has those before it",
        "judged: without or with reference in the prompt; !: the format in which the judge was not trained",
        "agreement: of the forward order with the teacher who is not biased and knows all; reference-only: on facts that only "
        "the reference tells; biases: pairs in which the answer shown first, or second, was preferred in both orders",
        *(f"[{mark}] {source}" for mark, source in SOURCES.items()),
        "published and measured differ in model, data and teacher; what can be compared is the direction",
    ]


def _extent(summary: Summary) -> str:
    seeds = len(summary["seeds"])
    over = f"{seeds} seeds" if seeds > 1 else "1 seed (so over records only)"
    return f"{over} × {summary['records'][0]} held-out pairs"


def _claim_lines(claim: dict[str, Any]) -> tuple[str, list[str]]:
    lines = []
    for one in claim["differences"]:
        low, high = one["interval"]
        least = f", {100 * min(one['by_seed']):+.1f} in the weakest seed" if len(one["by_seed"]) > 1 else ""
        lines.append(
            f"{_HEADINGS[one['metric']]}: {_cell_name(one['higher'])} minus {_cell_name(one['lower'])}: "
            f"{100 * one['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}){least}"
        )
    return f"{'holds' if claim['holds'] else 'NOT SHOWN'}: {claim['claim']}", lines


def _cell_name(cell: dict[str, Any]) -> str:
    return f"{cell['technique']} judged {_WITH[cell['reference']]}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in rows]
