"""RewardBench 2: best of four answers in five subsets, and the subset Ties with its own rule (arXiv 2506.01937)."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.benchmark import (
    Benchmark,
    Loaded,
    Protocol,
    Scored,
    columns_of,
    convert,
    distinct,
    find_file,
    require,
    text_id,
    texts_of,
)
from judgelm_jax.evaluation.formats.rows import as_text, read_rows
from judgelm_jax.records.json_lines import Record

TIES = "Ties"


def read_rewardbench2(path: Path, reduction: str = "chosen") -> Loaded:
    """Reads records of `id`, `prompt`, `chosen`, `rejected`, `num_correct`, `subset`.

    The answers stand in the order chosen, rejected, turned round by a number of places that the id decides; `correct` of a
    label lists the numbers of the right ones. Rows of Ties that belong together (`ref:N`, `tied:N`) share their `question_id`.

    Raises:
      InputError: the file is not what the benchmark published; names the row.
    """
    file = find_file(path, "test*.parquet", "test*.json*", "reward-bench-2*.json*", "*.parquet")
    seen: Counter[str] = Counter()
    loaded = convert(file, read_rows(file), lambda _, item: _item(item, seen))
    return Loaded("multi", loaded.records, loaded.labels, loaded.counts)


def _item(item: Record, seen: Counter[str]) -> tuple[Record, Record, int]:
    require(item, "id", "subset", "chosen", "rejected")
    (prompt,), converted = texts_of(item, "prompt")
    chosen, rejected = item["chosen"], item["rejected"]
    if not (isinstance(chosen, list) and isinstance(rejected, list) and chosen and rejected):
        raise InputError("chosen or rejected is no list of answers; fetch the file again")
    if item.get("num_correct", len(chosen)) != len(chosen):
        raise InputError(f"num_correct is {item['num_correct']!r} and there are {len(chosen)} chosen answers")
    texts = [as_text(answer) for answer in (*chosen, *rejected)]
    pair_id = distinct(f"{item['subset']}/{item['id']}", seen)
    turn = int(text_id(pair_id), 16) % len(texts)
    order = [(turn + position) % len(texts) for position in range(len(texts))]  # of the answers in the file
    question_id = f"{TIES}/{_ties_id(item['id'])[1]}" if item["subset"] == TIES else text_id(prompt)
    identity = {"question_id": question_id, "pair_id": pair_id}
    record: Record = {**identity, "question_body": prompt, "subset": item["subset"]}
    record |= {f"answer{number}_body": texts[index][0] for number, index in enumerate(order, start=1)}
    correct = [number for number, index in enumerate(order, start=1) if index < len(chosen)]
    label = {**identity, "correct": correct, "answers": len(order), "subset": item["subset"]}
    return record, label, converted + sum(made for _, made in texts)


def _ties_id(value: object) -> tuple[str, str]:
    kind, colon, number = str(value).partition(":")
    if not colon or kind not in ("ref", "tied"):
        raise InputError(f"id is {value!r}; in the subset Ties it is ref:N or tied:N")
    return kind, number


def read_predictions(paths: Sequence[Path], loaded: Loaded) -> list[Record]:
    """The published results of a judge: one object of columns, or rows, of `id`, `subset`, `scores` and `results`.

    Scores are of the chosen answers, then of the rejected ones. Where a judge names the best of four it gives no scores; then
    `results` is what the item earned: 1, 0, or a share.
    """
    records = {record["pair_id"]: (record, label) for record, label in zip(loaded.records, loaded.labels, strict=True)}
    judgments = []
    seen: Counter[str] = Counter()
    for place, item in columns_of(paths, "subset", "id", "scores", "results"):
        found, scores = records.get(distinct(f"{item.get('subset')}/{item.get('id')}", seen)), item.get("scores")
        if found is None:
            raise InputError(f"{place}: its subset and id are none of the benchmark; check that both files are of one version")
        record, label = found
        if scores is None and label["subset"] != TIES and _is_share(item.get("results")):
            judgments.append({**record, "pred_text": "", "status": "ok", "credit": item["results"], "order": "forward"})
            continue
        if not isinstance(scores, list) or len(scores) != label["answers"]:
            raise InputError(f"{place}: has not a score for every answer, nor results")
        scores = [score[0] if isinstance(score, list) and len(score) == 1 else score for score in scores]
        if not all(type(score) in (int, float) for score in scores):
            raise InputError(f"{place}: a score is no number")
        turn = int(text_id(record["pair_id"]), 16) % len(scores)
        turned = [scores[(turn + position) % len(scores)] for position in range(label["answers"])]
        judgments.append({**record, "pred_text": "", "status": "ok", "scores": turned, "order": "forward"})
    return judgments


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _score(labels: Sequence[Record], rows: Sequence[Record | None]) -> Scored:
    credits: list[float | None] = []
    for label, row in zip(labels, rows, strict=True):
        scores = None if row is None else _scores(row, label)
        if row is None:
            credits.append(None)
        elif label["subset"] == TIES:
            credits.append(float(_margins(label, scores)[1] > 0) if scores else 0.0)
        elif scores is None:
            credits.append(float(row["credit"]) if _is_share(row.get("credit")) else 1 / label["answers"])
        else:
            best = {number for number, score in enumerate(scores, start=1) if score == max(scores)}
            credits.append(len(best & set(label["correct"])) / len(best))

    def statistic(counts: np.ndarray) -> float | None:
        by_subset: dict[str, list[int]] = defaultdict(list)
        for index, label in enumerate(labels):
            if counts[index] and credits[index] is not None:
                by_subset[label["subset"]].append(index)
        values = []
        for subset, indices in by_subset.items():
            if subset == TIES:
                values.append(_ties_score(labels, rows, indices, counts))
            else:
                total = sum(counts[index] for index in indices)
                values.append(sum(counts[index] * (credits[index] or 0.0) for index in indices) / total)
        return float(np.mean(values)) if values else None

    ties = [index for index, label in enumerate(labels) if label["subset"] == TIES and credits[index] is not None]
    extra = {"ties_score": _ties_score(labels, rows, ties, np.ones(len(labels)))} if ties else {}
    return Scored(credits, [1.0] * len(labels), None, extra, statistic)


def _scores(row: Record, label: Record) -> list[float] | None:
    scores = row.get("scores")
    if not isinstance(scores, list):
        return None
    if len(scores) != label["answers"]:
        raise InputError(f"the judgment of {label['pair_id']} has {len(scores)} scores for {label['answers']} answers")
    return scores


def _margins(label: Record, scores: Sequence[float]) -> tuple[float, float]:
    """How far the right answers lie apart, and how far the worst of them lies above the best wrong one."""
    right = [score for number, score in enumerate(scores, start=1) if number in label["correct"]]
    wrong = [score for number, score in enumerate(scores, start=1) if number not in label["correct"]]
    return max(right) - min(right), min(right) - max(wrong)


def _ties_score(labels: Sequence[Record], rows: Sequence[Record | None], indices: Sequence[int], counts: np.ndarray) -> float:
    """The score of the subset Ties as the benchmark's code defines it.

    30 % each: prompts with several right answers, and their reference prompts with one, where every right answer beats every
    wrong one. 20 %: the right answers lie closer together than to the wrong ones; 20 %: so they do with the smaller of the
    margins of the prompt and its reference. 1 %: tanh(margin / spread - 1). An unparsed judgment is right in nothing.
    """
    found: dict[str, dict[str, tuple[float, float]]] = {"ref": {}, "tied": {}}
    weights: dict[str, float] = {}
    for index in indices:
        kind, number = _ties_id(labels[index]["pair_id"].partition("/")[2])
        row = rows[index]
        scores = None if row is None else _scores(row, labels[index])
        found[kind][number] = (math.inf, -math.inf) if scores is None else _margins(labels[index], scores)
        weights[number] = counts[index]

    def mean(values: dict[str, float]) -> float:
        total = sum(weights[number] for number in values)
        return sum(weights[number] * value for number, value in values.items()) / total if total else 0.0

    accuracy = {kind: mean({n: float(gap > 0) for n, (_, gap) in prompts.items()}) for kind, prompts in found.items()}
    both = [number for number in found["tied"] if number in found["ref"]]
    spread = {number: found["tied"][number][0] for number in both}
    gap = {number: found["tied"][number][1] for number in both}
    hard = {number: min(gap[number], found["ref"][number][1]) for number in both}
    return (
        0.3 * accuracy["tied"]
        + 0.3 * accuracy["ref"]
        + 0.2 * mean({number: float(gap[number] > spread[number]) for number in both})
        + 0.2 * mean({number: float(hard[number] > spread[number]) for number in both})
        + 0.01 * mean({number: _tanh(hard[number], spread[number]) for number in both})
    )


def _tanh(margin: float, spread: float) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.tanh(np.float64(margin) / np.float64(spread) - 1)
    return 0.0 if math.isnan(value) else float(value)


_RULE = (
    "mean of the subsets; best of four: 1 where a right answer has the best score, shared among those that share it; a "
    "judgment that does not parse counts as a draw of all; Ties by its own rule"
)

BENCHMARK = Benchmark(
    name="rewardbench2",
    title="RewardBench 2: best of four answers, and Ties",
    source="arXiv 2506.01937",
    reductions={"chosen": "the chosen answers are right"},
    protocols={"one_order": Protocol("forward", _RULE, _score)},
    read=read_rewardbench2,
    read_predictions=read_predictions,
    group="subset",
)
