"""Few labels: against the authors' package, and by simulation against what all labels say."""

import numpy as np
import pytest

from judgelm_jax.evaluation.joining import Facts, Joined, Judged, Prediction
from judgelm_jax.evaluation.prediction_powered import corrected_mean, few_labels, labels_for_width


def sample(seed: int, labelled: int, rest: int, skill: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of some records, and what the judge says of these and of the others."""
    generator = np.random.default_rng(seed)
    truth = (generator.random(labelled + rest) < 0.6).astype(float)
    said = np.where(generator.random(len(truth)) < skill, truth, (generator.random(len(truth)) < 0.7).astype(float))
    return truth[:labelled], said[:labelled], said[labelled:]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_with_a_given_weight_it_is_the_package_of_the_authors(seed: int, weight: float) -> None:
    ppi = pytest.importorskip("ppi_py")
    truth, said, rest = sample(seed, 400, 3000, 0.8)
    ours = corrected_mean(truth, said, range(400), rest, range(400, 3400), weight)
    assert ours is not None
    point = ppi.ppi_mean_pointestimate(truth, said, rest, lam=weight)
    assert ours.value == pytest.approx(float(np.squeeze(point)), abs=1e-12)
    low, high = (float(np.squeeze(end)) for end in ppi.ppi_mean_ci(truth, said, rest, alpha=0.05, lam=weight))
    # Theirs is normal and without the correction of the variance for few records: 0.4 % at 400 labels.
    assert ours.interval == pytest.approx((low, high), abs=0.005 * (high - low))


@pytest.mark.parametrize("seed", range(4))
def test_the_best_weight_is_that_of_the_package_of_the_authors(seed: int) -> None:
    ppi = pytest.importorskip("ppi_py")
    truth, said, rest = sample(seed, 500, 5000, 0.7)
    ours = corrected_mean(truth, said, range(500), rest, range(500, 5500))
    assert ours is not None
    assert ours.value == pytest.approx(float(np.squeeze(ppi.ppi_mean_pointestimate(truth, said, rest))), abs=0.001)
    low, high = (float(np.squeeze(end)) for end in ppi.ppi_mean_ci(truth, said, rest, alpha=0.05))
    assert ours.interval == pytest.approx((low, high), abs=0.02 * (high - low))


def test_a_judge_that_guesses_is_worth_nothing_and_a_good_one_is_worth_labels() -> None:
    generator = np.random.default_rng(0)
    truth, said, rest = sample(0, 300, 3000, 0.9)
    good = corrected_mean(truth, said, range(300), rest, range(300, 3300))
    assert good is not None
    assert good.worth > 2
    noise = corrected_mean(truth, generator.random(300), range(300), generator.random(3000), range(300, 3300))
    assert noise is not None
    assert noise.worth == pytest.approx(1, abs=0.1)
    few = corrected_mean(truth[:4], said[:4], range(4), rest, range(300, 3300))
    assert few is not None
    assert (few.weight, few.worth) == (0, 1)
    assert few.interval[1] - few.interval[0] > 0.3
    assert corrected_mean([], [], [], rest, range(3000)) is None


def test_half_the_width_takes_four_times_the_labels() -> None:
    truth, said, rest = sample(1, 300, 30000, 0.5)
    now = corrected_mean(truth, said, range(300), rest, range(300, 30300))
    assert now is not None
    width = now.interval[1] - now.interval[0]
    assert labels_for_width(now, 300, width / 2) == pytest.approx(1200, abs=1)
    assert labels_for_width(now, 300, 2 * width) == 300


@pytest.mark.parametrize(("labelled", "each"), [(40, 1), (150, 1), (60, 5)])
def test_the_interval_holds_what_all_labels_say(labelled: int, each: int) -> None:
    """500 simulated samples; records of a question share truth and error half of the time. Four standard errors are allowed."""
    generator = np.random.default_rng(7)
    held = 0
    questions = 8 * labelled
    for _ in range(500):
        common = generator.random(questions * each) < 0.7
        question = np.repeat(np.arange(questions), each)
        draws = np.where(common, generator.random((2, questions))[:, question], generator.random((2, questions * each)))
        truth = (draws[0] < 0.6).astype(float)
        said = np.where(draws[1] < 0.75, truth, 1.0)
        cut = labelled * each
        ours = corrected_mean(truth[:cut], said[:cut], question[:cut].tolist(), said[cut:], question[cut:].tolist())
        assert ours is not None
        held += ours.interval[0] <= 0.6 <= ours.interval[1]
    assert held / 500 > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 500)


def test_the_summary_corrects_wins_by_model_and_agreement() -> None:
    generator = np.random.default_rng(3)
    rows, labels = [], []
    for number in range(900):
        label = int(generator.choice([1, 2, 0], p=[0.5, 0.3, 0.2]))
        winner = label if generator.random() < 0.8 else 1
        judged, models = Judged("ok", winner), (("a", "b") if number % 2 else ("b", "a"))
        rows.append(
            Prediction(
                1, judged, judged, Judged("ok", winner if number % 5 else 2), facts=Facts(str(number), None, None, models)
            )
        )
        labels.append(label)
    joined = Joined(labels[:200], rows[:200], 0, 0, 700, unlabelled_predictions=rows[200:])
    summary = few_labels(joined, "wrong", width=0.05)
    assert (summary["labelled"], summary["unlabelled"]) == (200, 700)
    assert summary["first_wins_interval"][0] < 0.6 < summary["first_wins_interval"][1]
    narrow, wide = summary["first_wins_interval"], summary["first_wins_labels_only_interval"]
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
    assert summary["first_wins_labels_needed"] > 200
    both = [summary["models"][name]["win_rate"] for name in ("a", "b")]
    assert sum(both) == pytest.approx(1)
    assert summary["agreement_interval"][0] < 0.8 + 0.2 * 0.5 < summary["agreement_interval"][1]
    assert few_labels(Joined(labels, rows, 0, 0, 0), "wrong") == {}
