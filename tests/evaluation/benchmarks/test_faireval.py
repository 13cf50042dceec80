"""FairEval in the layout of its repository."""

from pathlib import Path

import pytest
from benchmark_files import score, summary_of, write_lines
from sklearn.metrics import cohen_kappa_score

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.faireval import BENCHMARK, read_faireval, read_predictions

LABELS = ("CHATGPT", "VICUNA13B", "TIE")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    questions = [{"question_id": n, "text": f"q{n}", "category": "generic" if n < 3 else "math"} for n in (1, 2, 3)]
    write_lines(tmp_path / "question.jsonl", *questions)
    for model in ("gpt35", "vicuna-13b", "gpt-4", "alpaca-13b"):
        write_lines(tmp_path / f"answer/answer_{model}.jsonl", *({"question_id": n, "text": f"{model} {n}"} for n in (3, 2, 1)))
    (tmp_path / "review").mkdir()
    (tmp_path / "review/review_gpt35_vicuna-13b_human.txt").write_text("\n".join(LABELS) + "\n")
    return tmp_path


def test_the_label_file_names_the_models_and_their_order(repository: Path) -> None:
    loaded = read_faireval(repository)
    assert [label["winner"] for label in loaded.labels] == [1, 2, 0]
    assert [(record["answer1_body"], record["answer2_body"]) for record in loaded.records] == [
        (f"gpt35 {n}", f"vicuna-13b {n}") for n in (1, 2, 3)
    ]
    for name in ("question.jsonl", "review/review_gpt35_vicuna-13b_human.txt"):
        assert read_faireval(repository / name) == loaded


def test_balanced_calibration_compares_the_mean_scores(repository: Path) -> None:
    loaded = read_faireval(repository)
    rows = []
    for record, one, two, winner in zip(
        loaded.records, ([9, 2], [7, 6], [3, 4]), ([4, 5], [5, 8], [4, 3]), (1, 2, 0), strict=True
    ):
        mean = [(first + second) / 2 for first, second in zip(one, two, strict=True)]
        assert winner == (0 if mean[0] == mean[1] else 1 if mean[0] > mean[1] else 2)
        single = {
            name: {"pred_text": "", "status": "ok", "winner": 1 if scores[0] > scores[1] else 2}
            for name, scores in (("forward", one), ("reversed", two))
        }
        rows.append({**record, "pred_text": "", "status": "ok", "winner": winner, "order": "both", **single})
    assert summary_of(BENCHMARK, loaded, rows)["score"] == 1
    assert score(BENCHMARK, loaded, [(1,), (1,), (2,)], "one_order")["score"] == pytest.approx(1 / 3)
    kappa = score(BENCHMARK, loaded, [(1,), (1,), (0,)], "one_order")["metrics"]["kappa"]
    assert kappa == pytest.approx(cohen_kappa_score([1, 2, 0], [1, 1, 0]))


def test_files_that_do_not_fit_are_named(repository: Path) -> None:
    labels = repository / "review/review_gpt35_vicuna-13b_human.txt"
    labels.write_text("CHATGPT\nTIE\n")
    with pytest.raises(InputError, match="2 labels for 3 questions"):
        read_faireval(repository)
    labels.write_text("CHATGPT\nVICUNA\nTIE\n")
    with pytest.raises(InputError, match=r"question\.jsonl:2: the label in .* is 'VICUNA'"):
        read_faireval(repository)
    labels.write_text("\n".join(LABELS))
    write_lines(repository / "answer/answer_gpt35.jsonl", {"question_id": 1, "text": "x"})
    with pytest.raises(InputError, match=r"question\.jsonl:2: gpt35 has no answer"):
        read_faireval(repository)
    (repository / "answer/answer_gpt35.jsonl").unlink()
    with pytest.raises(InputError, match=r"answer_gpt35\.jsonl"):
        read_faireval(repository)


def review(first: float, second: float) -> str:
    return f"Evaluation evidence: both: fine.\nScore of the Assistant 1: {first}\nScore of the Assistant 2: {second}"


def test_what_the_program_writes_is_predictions(repository: Path) -> None:
    """`FairEval.py`: k reviews an order; `score` is the mean of all of them in the file's order."""
    loaded = read_faireval(repository)
    games = [([(9, 2), (7, 7)], [(5, 8), (3, 9)]), ([(8, 6)], [(9, 5)]), ([(6, 4)], [(6, 4)])]
    rows = []
    for record, (forward, back) in zip(loaded.records, games, strict=True):
        pairs = [*forward, *((second, first) for first, second in back)]
        mean = [sum(column) / len(pairs) for column in zip(*pairs, strict=True)]
        texts = {"review": [review(*pair) for pair in forward], "review_bpc": [review(*pair) for pair in back]}
        rows.append({"question_id": record["question_id"], "question": record["question_body"], **texts, "score": mean})
    path = write_lines(repository / "review/review_gpt35_vicuna-13b_gpt-4_mec3_bpc1.json", *rows)
    judgments = read_predictions([path], loaded)
    assert [row["winner"] for row in judgments] == [1, 2, 0]
    assert [(row["forward"]["winner"], row["reversed"]["winner"]) for row in judgments] == [(1, 1), (1, 2), (1, 2)]
    assert summary_of(BENCHMARK, loaded, judgments)["score"] == 1
    one_order = write_lines(repository / "o.json", *(row | {"review_bpc": [], "score": [9, 1]} for row in rows))
    judgments = read_predictions([one_order], loaded)
    assert [row["order"] for row in judgments] == ["forward"] * 3
    assert summary_of(BENCHMARK, loaded, judgments, "one_order")["score"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"question_id": 9}, "question_id is none"),
        ({"score": [1]}, "score is"),
        ({"review": "x"}, "review is no list"),
        ({"review_bpc": None}, "review_bpc is no list"),
    ],
)
def test_a_wrong_prediction_is_named(repository: Path, wrong: dict, message: str) -> None:
    row = {"question_id": 1, "review": [review(1, 2)], "review_bpc": [], "score": [1, 2]}
    path = write_lines(repository / "p.json", row, row | {"question_id": 2} | wrong)
    with pytest.raises(InputError, match=rf"p\.json:2: .*{message}"):
        read_predictions([path], read_faireval(repository))
