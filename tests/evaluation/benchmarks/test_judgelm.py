"""JudgeLM's validation set in the layout of its four files, and GPT-4's reviews as real labels."""

import json
from collections import defaultdict
from pathlib import Path

import pytest
from benchmark_files import score, summary_of, write_lines

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.judgelm import BENCHMARK, read_judgelm, read_predictions
from judgelm_jax.evaluation.benchmarks.predictions import read_predictions as any_predictions
from judgelm_jax.evaluation.joining import join, read_labels
from judgelm_jax.evaluation.metrics import summarize
from judgelm_jax.records.json_lines import dump_line
from judgelm_jax.records.records import check_records
from judgelm_jax.verdicts.score_lines import parse_scores, winner_of


@pytest.fixture
def files(tmp_path: Path) -> Path:
    bodies = {"question_body": "q\n", "answer1_body": "a", "answer2_body": "b"}
    write_lines(tmp_path / "judgelm_val_5k.jsonl", *({"question_id": n, **bodies, "score": [{}, {}]} for n in range(4)))
    texts = ["8 3\nso", "2 9\nso", "5 5\nso", "error"]
    scores = [[8, 3], [2, 9], [5, 5], [-1, -1]]
    labels = [{"question_id": n, "text": text, "score": scores[n]} for n, text in enumerate(texts)]
    write_lines(tmp_path / "judgelm_val_5k_gpt4.jsonl", *labels)
    turned = [{"question_id": n, "text": "1 2", "score": [1, 2]} for n in range(4)]
    write_lines(tmp_path / "judgelm_val_5k_gpt4_with_reference.jsonl", *turned)
    references = [{"question_id": n, "reference": {"text": f"r{n}"}} for n in range(4)]
    write_lines(tmp_path / "judgelm_val_5k_references.jsonl", *references)
    return tmp_path


@pytest.mark.parametrize("where", ["", "judgelm_val_5k.jsonl"])
def test_labels_are_the_scores_and_a_failed_teacher_gives_none(files: Path, where: str) -> None:
    loaded = read_judgelm(files / where)
    assert [label["winner"] for label in loaded.labels] == [1, 2, 0, None]
    assert all("reference" not in record for record in loaded.records)
    summary = score(BENCHMARK, loaded, [(1,), (1,), (0,), (1,)])
    assert (summary["score"], summary["total"], summary["coverage"]["without_label"]) == (pytest.approx(2 / 3), 3, 1)


def test_with_reference_has_other_labels_and_gives_the_judge_the_references(files: Path, tmp_path: Path) -> None:
    loaded = read_judgelm(files, "with_reference")
    assert [label["winner"] for label in loaded.labels] == [2, 2, 2, 2]
    assert [record["reference"]["text"] for record in loaded.records] == ["r0", "r1", "r2", "r3"]
    path = tmp_path / "records.jsonl"
    path.write_text("".join(dump_line(row) + "\n" for row in loaded.records))
    assert check_records(path).records == 4


def test_published_figures_of_both_label_files_stand_beside(files: Path) -> None:
    published = {(one.judge, one.metric): one.value for one in BENCHMARK.baselines}
    assert published["JudgeLM-7B", "agreement without reference"] == 0.8111
    assert published["JudgeLM-33B", "consistency with reference"] == 0.9237
    assert len(published) == 18


def test_a_file_that_is_missing_or_lacks_a_label_is_named(files: Path) -> None:
    labels = files / "judgelm_val_5k_gpt4.jsonl"
    write_lines(labels, {"question_id": 0, "winner": 1})
    with pytest.raises(InputError, match=r"val_5k\.jsonl:2: there is no label for the id 1"):
        read_judgelm(files)
    labels.unlink()
    with pytest.raises(InputError, match=r"val_5k_gpt4\.jsonl: no such file"):
        read_judgelm(files)
    with pytest.raises(InputError, match="there is no judgelm_val_5k"):
        read_judgelm(Path(__file__).parent)


@pytest.mark.parametrize("part", ["train", "val"])
def test_reviews_parsed_again_give_their_scores(shared: Path, part: str) -> None:
    path = shared / f"data/reviews/gpt4_pairs_{part}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == {"train": 4990, "val": 1213}[part]
    assert [parse_scores(row["text"], 2) for row in rows] == [row["score"] for row in rows]
    labels = read_labels(path, "tolerant").values()
    assert [label.winner for label, _ in labels] == [winner_of(row["score"]) for row in rows]


def test_gpt4_is_as_consistent_as_was_measured(shared: Path, tmp_path: Path) -> None:
    """QLoRA's reviewers saw each pair in both orders; 91.8 % of them name the same winner."""
    pairs: dict = defaultdict(lambda: ([], []))
    for part in ("train", "val"):
        for line in (shared / f"data/reviews/gpt4_pairs_{part}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            first, second = row["answer1_id"], row["answer2_id"]
            pairs[row["question_body"], *sorted((first, second))][first > second].append(row)
    both = [games for forward, back in pairs.values() for games in zip(forward, back, strict=False)]
    assert len(both) > 2500
    labels = write_lines(tmp_path / "l.jsonl", *({"question_id": n, "winner": 1} for n in range(len(both))))
    forward = write_lines(
        tmp_path / "f.jsonl", *({"question_id": n, "pred_text": one["text"]} for n, (one, _) in enumerate(both))
    )
    back = write_lines(tmp_path / "r.jsonl", *({"question_id": n, "pred_text": two["text"]} for n, (_, two) in enumerate(both)))
    summary = summarize(join(labels, forward, back, "tolerant"), parser="tolerant", unparsed="wrong")
    same = sum(winner_of(one["score"]) == {1: 2, 2: 1, 0: 0}[winner_of(two["score"])] for one, two in both)
    assert summary["consistency"] == pytest.approx(same / len(both))
    assert round(summary["consistency"], 3) == 0.918


def test_files_in_the_form_of_the_labels_are_predictions(files: Path) -> None:
    """GPT-4 with references against GPT-4 without: it says `1 2` to all; a failed teacher is no verdict."""
    loaded = read_judgelm(files)
    rows = read_predictions([files / "judgelm_val_5k_gpt4_with_reference.jsonl"], loaded)
    assert [row["winner"] for row in rows] == [2, 2, 2, 2]
    assert summary_of(BENCHMARK, loaded, rows)["score"] == pytest.approx(1 / 3)
    failed = read_predictions([files / "judgelm_val_5k_gpt4.jsonl"], loaded)[3]
    assert (failed["winner"], failed["status"]) == (None, "unparsed")


def test_the_files_that_the_published_scripts_write_are_predictions(files: Path) -> None:
    """`gen_model_judgement.py` writes a file an order; the reversed one has the answers exchanged and says so nowhere."""
    loaded = read_judgelm(files)
    written = []
    for name, texts in (("7b", ("9 1", "3 4", "6 6", "1 2")), ("7b-reverse", ("2 8", "8 2", "7 5", "1 2"))):
        rows = [
            {**record, "pred_id": str(n), "pred_text": text, "pred_model_id": "7b-full-model", "tstamp": 1.5}
            for n, (record, text) in enumerate(zip(loaded.records, texts, strict=True))
        ]
        if name.endswith("reverse"):
            rows = [row | {"answer1_body": row["answer2_body"], "answer2_body": row["answer1_body"]} for row in rows]
        written.append(write_lines(files / f"{name}.jsonl", *rows))
    judgments = any_predictions(BENCHMARK, loaded, written)
    assert [(row["forward"]["winner"], row["reversed"]["winner"]) for row in judgments[:3]] == [(1, 1), (2, 2), (0, 2)]
    assert [row["answer1_body"] for row in judgments] == ["a"] * 4
    assert summary_of(BENCHMARK, loaded, judgments)["score"] == pytest.approx(1)
    with pytest.raises(InputError, match="a third file of judgments"):
        any_predictions(BENCHMARK, loaded, [*written, written[0]])
