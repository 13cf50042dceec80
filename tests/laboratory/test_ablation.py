"""The ablation's metrics against those of `evaluate` and scikit-learn, its intervals against brute force and normal theory."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score

from judgelm_jax.evaluation import metrics
from judgelm_jax.evaluation.joining import Joined, Judged, Prediction
from judgelm_jax.laboratory import ablation, ablation_report
from judgelm_jax.laboratory.ablation import CELLS, DROP, NONE, SUPPORT, SWAP, Cell, SeedOutcomes

VERDICTS = st.sampled_from([1, 2, 0, None])
# What the judges of the trial did: how often they agree in each cell.
AGREEING = dict(zip(CELLS, (0.59, 0.42, 0.80, 0.47, 0.50, 0.90, 0.82, 1.0), strict=True))
CONSISTENT = dict(zip(CELLS, (0.42, 0.04, 0.95, 0.34, 0.46, 0.88, 1.0, 1.0), strict=True))


def made(seed: int, records: int, agreeing: dict[Cell, float], consistent: dict[Cell, float]) -> SeedOutcomes:
    """Outcomes with given rates; an inconsistent pair prefers the answer shown first."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, records)
    winners = {}
    for cell in CELLS:
        forward = np.where(rng.random(records) < agreeing[cell], labels, (labels + 1) % 3)
        back = np.where(rng.random(records) < consistent[cell], forward, np.where(forward == 2, 0, 2))
        winners[cell] = list(zip(forward.tolist(), back.tolist(), strict=True))
    return SeedOutcomes(seed, labels.tolist(), (rng.random(records) < 0.5).tolist(), winners)


@pytest.fixture(scope="module")
def runs() -> list[SeedOutcomes]:
    return [made(seed, 512, AGREEING, CONSISTENT) for seed in range(3)]


@pytest.fixture(scope="module")
def summary(runs) -> ablation.Summary:
    return ablation.summarize(runs)


def cell_of(summary: ablation.Summary, cell: Cell) -> ablation.Summary:
    (found,) = (row for row in summary["cells"] if (row["technique"], row["reference"]) == tuple(cell))
    return found


@given(st.lists(st.tuples(st.sampled_from([1, 2, 0]), st.booleans(), VERDICTS, VERDICTS), min_size=1, max_size=20))
def test_metrics_are_those_of_evaluate_and_of_scikit_learn(rows) -> None:
    labels, needs = [row[0] for row in rows], [row[1] for row in rows]
    run = SeedOutcomes(0, labels, needs, {cell: [row[2:] for row in rows] for cell in CELLS})
    ours = ablation.summarize([run], resamples=2)["cells"][0]

    def judged(winner: int | None) -> Judged:
        return Judged("unparsed" if winner is None else "ok", winner)

    predictions = [Prediction(1, judged(one), judged(one), judged(other)) for _, _, one, other in rows]
    theirs = metrics.summarize(Joined(labels, predictions, 0, 0, 0), parser="tolerant", unparsed="wrong")
    for name in ("agreement", "consistency", "bias_first", "bias_second", "delta_bias"):
        assert ours[name] == pytest.approx(theirs[name]), name
    pairs = [(label, -1 if one is None else one) for label, need, one, _ in rows if need]
    expected = accuracy_score(*zip(*pairs, strict=True)) if pairs else 0.0
    assert ours["agreement_reference_only"] == pytest.approx(expected)


def test_numbers_by_hand() -> None:
    # Label 1: right in both orders; right, then first again (first preferred); wrong twice; no verdict in the second order.
    winners = [(1, 1), (1, 2), (2, 2), (1, None)]
    run = SeedOutcomes(7, [1, 1, 1, 1], [True, True, False, False], dict.fromkeys(CELLS, winners))
    row = ablation.summarize([run, dataclasses.replace(run, seed=8)], resamples=10)["cells"][3]
    assert (row["agreement"], row["agreement_reference_only"]) == (0.75, 1.0)
    assert (row["consistency"], row["bias_first"], row["bias_second"], row["delta_bias"]) == (0.5, 0.25, 0.0, 0.25)
    assert row["agreement_by_seed"] == [0.75, 0.75]


def test_the_bootstrap_draws_seeds_and_then_their_records() -> None:
    rng = np.random.default_rng(1)
    tables = [rng.random((n, 2)) + 3 * seed for seed, n in enumerate((20, 30, 25))]
    ours = ablation.hierarchical_sums(tables, 20_000)

    def drawn() -> np.ndarray:
        chosen = [tables[seed] for seed in rng.integers(3, size=3)]
        return sum(table[rng.integers(len(table), size=len(table))].sum(axis=0) for table in chosen)

    brute = np.array([drawn() for _ in range(20_000)])
    assert ours.mean(axis=0) == pytest.approx(brute.mean(axis=0), rel=0.01)
    assert ours.std(axis=0) == pytest.approx(brute.std(axis=0), rel=0.03)
    for level in (0.025, 0.5, 0.975):
        assert np.quantile(ours, level, axis=0) == pytest.approx(np.quantile(brute, level, axis=0), rel=0.03)


def test_with_one_seed_an_interval_is_that_of_a_proportion() -> None:
    run = made(0, 900, AGREEING, CONSISTENT)
    row = cell_of(ablation.summarize([run], resamples=5000), Cell(SWAP, False))
    half = 1.96 * np.sqrt(row["agreement"] * (1 - row["agreement"]) / 900)
    assert row["agreement_interval"] == pytest.approx((row["agreement"] - half, row["agreement"] + half), abs=0.004)


def test_seeds_that_differ_widen_the_interval() -> None:
    alike = [made(seed, 400, AGREEING, CONSISTENT) for seed in range(3)]
    unlike = [
        made(seed, 400, {cell: rate + shift for cell, rate in AGREEING.items()}, CONSISTENT)
        for seed, shift in enumerate((-0.2, 0.0, 0.2))
    ]
    widths = []
    for runs in (alike, unlike):
        low, high = cell_of(ablation.summarize(runs), Cell(NONE, False))["agreement_interval"]
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]
    # Three seeds of rates p−d, p, p+d drawn with replacement: the mean has deviation d·√(2/3)/√3.
    assert widths[1] == pytest.approx(2 * 1.96 * 0.2 * np.sqrt(2) / 3, rel=0.2)


def test_differences_are_paired() -> None:
    """Two cells that agree on the same records but for a few: their difference is sharper than either of them."""
    rng = np.random.default_rng(3)
    labels = [1] * 600
    right = rng.random(600) < 0.5
    better = right | (rng.random(600) < 0.04)
    winners = {cell: [(1 if hit else 2, 1) for hit in (better if cell.technique == DROP else right)] for cell in CELLS}
    summary = ablation.summarize([SeedOutcomes(0, labels, [True] * 600, winners)])
    claims = {claim["claim"]: claim for claim in summary["claims"]}
    difference = claims["reference drop restores both formats"]["differences"][0]
    assert difference["difference"] == pytest.approx(better.mean() - right.mean())
    low, high = difference["interval"]
    gained = (better & ~right).mean()
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(gained * (1 - gained) / 600), rel=0.15)


def test_claims_hold_where_every_interval_lies_above_zero(runs, summary) -> None:
    assert [claim["holds"] for claim in summary["claims"]] == [True] * 4
    # Without a difference in consistency, only what speaks of it falls.
    same = [made(seed, 512, AGREEING, dict.fromkeys(CELLS, 0.7)) for seed in range(3)]
    assert [claim["holds"] for claim in ablation.summarize(same)["claims"]] == [False, True, True, False]
    reverse = [made(seed, 512, {cell: 1 - rate for cell, rate in AGREEING.items()}, CONSISTENT) for seed in range(3)]
    assert [claim["holds"] for claim in ablation.summarize(reverse)["claims"]] == [True, False, False, False]
    for claim in summary["claims"]:
        for one in claim["differences"]:
            higher, lower = (cell_of(summary, Cell(**one[side])) for side in ("higher", "lower"))
            assert one["difference"] == pytest.approx(higher[one["metric"]] - lower[one["metric"]])
            assert one["interval"][0] < one["difference"] < one["interval"][1]


def test_the_same_outcomes_give_the_same_summary_and_valid_json(runs, summary, tmp_path: Path) -> None:
    assert ablation.summarize(runs) == summary
    ablation.save(summary, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["records"] == [512] * 3


def test_missing_judgments_are_refused(runs) -> None:
    short = dataclasses.replace(runs[0], winners={**runs[0].winners, Cell(DROP, True): runs[0].winners[Cell(DROP, True)][:-1]})
    with pytest.raises(ValueError, match=r"511 judgments for 512 labels"):
        ablation.summarize([short])
    with pytest.raises(ValueError, match=r"at least one seed"):
        ablation.summarize([])


def test_the_tables_show_measured_beside_published(summary) -> None:
    text, markdown = ablation_report.text(summary), ablation_report.markdown(summary)
    row = cell_of(summary, Cell(SUPPORT, True))
    low, high = row["agreement_interval"]
    shown = f"{100 * row['agreement']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    (line,) = (line for line in text.splitlines() if shown in line)
    assert line.index(shown) < line.index("80.15 [c]") < line.index("81.23 [c]")
    assert [line.count("|") for line in markdown.splitlines() if line.startswith("|")] == [11] * (2 + len(CELLS))
    for mark in ablation_report.SOURCES:
        assert f"[{mark}] " in text
    assert {mark for numbers in ablation_report.PUBLISHED.values() for _, mark in numbers.values()} == set(
        ablation_report.SOURCES
    )
    assert text.count("holds: ") == 4
    assert "3 seeds × 512 held-out pairs" in text
    assert sum(" ! " in line for line in text.splitlines()[1 : 1 + len(CELLS)]) == 3


def test_one_seed_says_that_its_intervals_are_over_records_only(runs) -> None:
    text = ablation_report.text(ablation.summarize(runs[:1]))
    assert "over records only" in text
    assert "weakest seed" not in text


def test_the_plot_is_an_image_of_some_size_with_both_colours(summary, tmp_path: Path) -> None:
    ablation_report.plot(summary, tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png").convert("RGB")
    assert min(image.size) > 600
    colours = {colour for _, colour in image.getcolors(1 << 24)}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours
