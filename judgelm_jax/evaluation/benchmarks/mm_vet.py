"""MM-Vet: answers about images, graded against a reference, by capability (arXiv 2308.02490)."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.benchmark import Benchmark, Loaded, Protocol, Scored, find_file, texts_of
from judgelm_jax.evaluation.formats.rows import as_text, read_json
from judgelm_jax.records.json_lines import Record


def read_mm_vet(path: Path, reduction: str = "reference") -> Loaded:
    """Reads `mm-vet.json`: an object from ids to `question`, `answer` (the reference) and `capability`.

    Raises:
      InputError: the file is not what the benchmark published; names the item.
    """
    file = find_file(path, "mm-vet.json", "mm-vet*.json")
    items = _object(file)
    loaded = Loaded("multimodal", [], [], {"converted": 0})
    for key, item in items.items():
        try:
            if not isinstance(item, dict):
                raise InputError("is no JSON object; fetch the file again")
            (question, reference), converted = texts_of(item, "question", "answer")
            capability = item.get("capability")
            if not isinstance(capability, list) or not all(isinstance(name, str) for name in capability):
                raise InputError(f"capability is {capability!r}; it is a list of names")
        except InputError as error:
            raise InputError(f"{file}: item {key!r}: {error}") from error
        loaded.records.append(
            {
                "question_id": key,
                "question_body": question,
                "reference": reference,
                "capability": capability,
                "imagename": item.get("imagename"),
            }
        )
        loaded.labels.append({"question_id": key, "capability": capability, "group": "+".join(sorted(capability))})
        loaded.counts["converted"] += converted
    return loaded


def add_answers(loaded: Loaded, path: Path) -> Loaded:
    """Puts the answers of one model, an object from ids to texts, into the records."""
    answers = _object(path)
    missing = next((record["question_id"] for record in loaded.records if record["question_id"] not in answers), None)
    if missing is not None:
        raise InputError(f"{path}: has no answer to {missing!r}; every question of --data needs one")
    pairs = [as_text(answers[record["question_id"]]) for record in loaded.records]
    records = [
        record | {"answer1_body": text, "answer1_model_id": path.stem}
        for record, (text, _) in zip(loaded.records, pairs, strict=True)
    ]
    counts = {
        "converted": loaded.counts["converted"] + sum(made for _, made in pairs),
        "unused_answers": len(answers) - len(records),
    }
    return Loaded(loaded.kind, records, loaded.labels, counts)


def _object(path: Path) -> dict[str, object]:
    value = read_json(path)
    if not isinstance(value, dict) or not value:
        raise InputError(f"{path}: holds no JSON object of items by id; fetch the file again")
    return value


def read_predictions(paths: Sequence[Path], loaded: Loaded) -> list[Record]:
    """The published form of a grader: an object from ids to `score`, a list of one grade from 0 to 1 a run."""
    records = {record["question_id"]: record for record in loaded.records}
    judgments = []
    for file, (key, item) in ((path, entry) for path in paths for entry in _object(path).items()):
        if key not in records:
            continue  # the whole benchmark was graded, and --data holds a part
        grades = item.get("score") if isinstance(item, dict) else None
        if not isinstance(grades, list) or not grades or not all(_is_grade(grade) for grade in grades):
            raise InputError(f"{file}: item {key!r}: score is no list of grades from 0 to 1")
        soft = sum(grades) / len(grades)
        judgments.append({**records[key], "pred_text": "", "status": "ok", "scores": [10 * soft], "soft_score": soft})
    return judgments


def _is_grade(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _score(labels: Sequence[Record], rows: Sequence[Record | None]) -> Scored:
    credits = [None if row is None else _soft_score(row) for row in rows]
    by_capability: dict[str, list[float]] = defaultdict(list)
    for label, credit in zip(labels, credits, strict=True):
        for name in label["capability"]:
            if credit is not None:
                by_capability[name].append(credit)
    means = {name: sum(values) / len(values) for name, values in sorted(by_capability.items())}
    return Scored(credits, [1.0] * len(labels), None, {"capabilities": means})


def _soft_score(row: Record) -> float:
    """The grade from 0 to 1: `soft_score`, or a tenth of the (expected) score; a judgment that does not parse earns 0."""
    if _is_grade(row.get("soft_score")):
        return float(row["soft_score"])
    for field in ("expected_scores", "scores"):
        values = row.get(field)
        if isinstance(values, list) and values and type(values[-1]) in (int, float):
            return float(values[-1]) / 10
    return 0.0


BENCHMARK = Benchmark(
    name="mm_vet",
    title="MM-Vet: answers about images, graded against a reference",
    source="arXiv 2308.02490",
    reductions={"reference": "no label: the grade is the score"},
    protocols={"graded": Protocol("forward", "the mean grade from 0 to 1, over all and by capability", _score)},
    read=read_mm_vet,
    read_predictions=read_predictions,
    group="group",
    add_answers=add_answers,
)
