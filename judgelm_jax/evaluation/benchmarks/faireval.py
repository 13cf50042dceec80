"""FairEval: 80 questions, ChatGPT against Vicuna-13B, labelled by people (arXiv 2305.17926)."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks import rules
from judgelm_jax.evaluation.benchmarks.benchmark import (
    Benchmark,
    Loaded,
    convert,
    exchanged,
    find_file,
    imported,
    rows_of,
    texts_of,
)
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import question_identity
from judgelm_jax.verdicts.score_lines import winner_of

_LABELS = re.compile(r"review_(?P<first>[^_]+)_(?P<second>[^_]+)_human\.txt")
_WINNERS = {"CHATGPT": 1, "VICUNA13B": 2, "TIE": 0}


def read_faireval(path: Path, reduction: str = "human") -> Loaded:
    """Reads `question.jsonl`, the two answer files that the name of the label file names, and the label file, below a folder.

    Raises:
      InputError: a file is missing or is not what the benchmark published; names the line.
    """
    root = path if path.is_dir() else path.parent
    if path.is_file() and not (root / "question.jsonl").is_file():
        root = root.parent  # the label file lies in a folder of its own
    label_file = find_file(root, "review_*_human.txt")
    models = _LABELS.fullmatch(label_file.name)
    if models is None:
        raise InputError(f"{label_file}: its name does not say which two models it compares; it is review_A_B_human.txt")
    questions = read_rows(find_file(root, "question.jsonl"))
    answers = [_texts(find_file(root, f"answer_{model}.jsonl", f"{model}.jsonl")) for model in models.groups()]
    labels = label_file.read_text(encoding="utf-8", errors="replace").split()
    if len(labels) != len(questions):
        raise InputError(f"{label_file}: {len(labels)} labels for {len(questions)} questions; fetch both files again")

    def pair(position: int, item: Record) -> tuple[Record, Record, int]:
        if labels[position] not in _WINNERS:
            raise InputError(f"the label in {label_file} is {labels[position]!r}; it is one of {', '.join(_WINNERS)}")
        (question,), converted = texts_of(item, "text")
        key = question_identity(item)
        missing = next((model for model, texts in zip(models.groups(), answers, strict=True) if key not in texts), None)
        if missing is not None:
            raise InputError(f"{missing} has no answer to it; fetch the answer files again")
        record: Record = {"question_id": item["question_id"], "question_body": question}
        for number, (model, texts) in enumerate(zip(models.groups(), answers, strict=True), start=1):
            record |= {f"answer{number}_body": texts[key][0], f"answer{number}_model_id": model}
            converted += texts[key][1]
        category = item.get("category")
        label = {"question_id": item["question_id"], "winner": _WINNERS[labels[position]], "category": category}
        return {**record, "category": category}, label, converted

    return convert(path, questions, pair)


def _texts(file: Path) -> dict[str, tuple[str, int]]:
    texts = {}
    for place, item in read_rows(file):
        try:
            (text,), converted = texts_of(item, "text")
            texts[question_identity(item)] = text, converted
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
    return texts


def read_predictions(paths: Sequence[Path], loaded: Loaded) -> list[Record]:
    """What the benchmark's program writes: a line a question with `review`, `review_bpc` and `score`.

    Reviews are the texts of the games in the order of the file and, with balanced positions, of the exchanged ones; their last
    two lines end in the scores in the order shown. `score` is the mean of all, in the file's order; it names the winner.
    """
    records = {question_identity(record): record for record in loaded.records}
    judgments = []
    for place, item in rows_of(paths):
        try:
            record = records.get(question_identity(item)) if "question_id" in item else None
            if record is None:
                raise InputError("its question_id is none of the benchmark; check that --data is the same repository")
            score = _scores(item.get("score"))
            reviews = [_reviews(item, name) for name in ("review", "review_bpc")]
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        games = [_winner(reviews[0]), *([exchanged(_winner(reviews[1]))] if reviews[1] else [])]
        text = reviews[0][0] if reviews[0] else ""
        outcome = {"status": "ok", "winner": winner_of(score), "scores": score}
        judgments.append({**imported(record, paths[0].stem, *games, text=text), **outcome})
    return judgments


def _scores(value: object) -> list[float]:
    if isinstance(value, list) and len(value) == 2 and all(type(score) in (int, float) for score in value):
        return [float(score) for score in value]
    raise InputError(f"score is {value!r}; it is the mean scores of both answers")


def _reviews(item: Record, name: str) -> list[str]:
    value = item.get(name)
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    raise InputError(f"{name} is no list of texts; it holds the reviews of one order")


def _winner(reviews: Sequence[str]) -> int | None:
    """By the mean scores of the reviews, in the order shown; None where no review ends in two numbers."""
    pairs = []
    for review in reviews:
        try:
            pair = [float(line.rpartition(":")[2]) for line in review.split("\n")[-2:]]
        except ValueError:
            continue
        if len(pair) == 2 and all(math.isfinite(score) for score in pair):
            pairs.append(pair)
    return winner_of([sum(column) for column in zip(*pairs, strict=True)]) if pairs else None


BENCHMARK = Benchmark(
    name="faireval",
    title="FairEval: 80 questions, ChatGPT against Vicuna-13B",
    source="arXiv 2305.17926",
    reductions={"human": "the label that people agreed on"},
    protocols={
        "balanced": rules.agreement(
            "both",
            "balanced position calibration: the higher mean score of both orders names the winner (accuracy, kappa)",
            rules.mean_of_both,
        ),
        "one_order": rules.agreement("forward", "the verdict of the order of the file names the label's winner", rules.forward),
    },
    read=read_faireval,
    read_predictions=read_predictions,
    group="category",
)
