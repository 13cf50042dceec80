"""What tests of several benchmarks use: files written in a benchmark's layout, and scores of judgments made for them."""

import json
from pathlib import Path

from judgelm_jax.evaluation.benchmarks.benchmark import Benchmark, Loaded, imported
from judgelm_jax.evaluation.benchmarks.scoring import Summary, summarize_benchmark

TALK = [{"role": role, "content": role} for role in ("user", "assistant")] * 2
GRADED = (
    "###The instruction to evaluate:\nI\n###Response to evaluate:\nR\n###Reference Answer (Score 5):\nA\n"
    "###Score Rubrics:\nC\n###Feedback:"
)

# A row as the benchmark has it, the file that holds such rows, and the other files it needs.
ROWS = {
    "judgelm": {"question_id": 1, "question_body": "q", "answer1_body": "a", "answer2_body": "b"},
    "pandalm": {"idx": 1, "cmp_key": "a_b", "instruction": "i", "input": "", "response1": "a", "response2": "b",
                "annotator1": 1, "annotator2": 2, "annotator3": 0},
    "llmbar": {"input": "q", "output_1": "a", "output_2": "b", "label": 1},
    "judgebench": {"pair_id": "p", "source": "livecodebench", "response_model": "m", "question": "q", "response_A": "a",
                   "response_B": "b", "label": "A>B"},
    "rewardbench": {"id": 1, "subset": "hep-go", "prompt": "p", "chosen": "a", "rejected": "b"},
    "rewardbench2": {"id": "ref:1", "subset": "Ties", "prompt": "p", "chosen": ["a"], "rejected": ["b"], "num_correct": 1},
    "mt_bench": {"question_id": 81, "model_a": "a", "model_b": "b", "winner": "tie", "judge": "expert_0", "turn": 2,
                 "conversation_a": TALK, "conversation_b": TALK},
    "auto_j": {"scenario": "s", "label": 2, "prompt": "p", "response 1": "a", "response 2": "b"},
    "faireval": {"question_id": 1, "text": "q", "category": "c"},
    "alpaca_eval": {"instruction": "i", "output_1": "a", "output_2": "b", "preference": 1.5, "dataset": "d"},
    "prometheus": {"idx": 1, "response_source": "m", "gpt4_score": [1, 2, 3], "instruction": GRADED},
    "mm_vet": {"question": "q", "answer": "a", "capability": ["ocr"], "imagename": "i"},
}  # fmt: skip
FILES = {
    "judgelm": "judgelm_val_5k.jsonl",
    "pandalm": "testset-v1.json",
    "llmbar": "Natural/dataset.json",
    "judgebench": "dataset=judgebench,response_model=m.jsonl",
    "rewardbench": "filtered.jsonl",
    "rewardbench2": "test.jsonl",
    "mt_bench": "human.jsonl",
    "auto_j": "testdata_pairwise.jsonl",
    "faireval": "question.jsonl",
    "alpaca_eval": "annotations.json",
    "prometheus": "vicuna_eval.json",
    "mm_vet": "mm-vet.json",
}
BESIDE = {
    "judgelm": {"judgelm_val_5k_gpt4.jsonl": '{"question_id": 1, "winner": 1}\n'},
    "faireval": {
        "answer/answer_a.jsonl": '{"question_id": 1, "text": "x"}\n',
        "answer/answer_b.jsonl": '{"question_id": 1, "text": "y"}\n',
        "review/review_a_b_human.txt": "TIE\n",
    },
}


def write_lines(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def score(benchmark: Benchmark, loaded: Loaded, games: list, protocol: str | None = None, **named: str) -> Summary:
    """The summary of judgments with these winners: a tuple of one or two games an item, None for no judgment."""
    rows = [
        imported(record, "judge", *winners)
        for record, winners in zip(loaded.records, games, strict=True)
        if winners is not None
    ]
    return summary_of(benchmark, loaded, rows, protocol, **named)


def summary_of(
    benchmark: Benchmark, loaded: Loaded, rows: list, protocol: str | None = None, reduction: str | None = None
) -> Summary:
    return summarize_benchmark(
        benchmark,
        loaded,
        rows,
        reduction=reduction or next(iter(benchmark.reductions)),
        protocol=protocol or next(iter(benchmark.protocols)),
    )


def place(folder: Path, name: str, content: str) -> Path:
    for file, text in {FILES[name]: content, **BESIDE.get(name, {})}.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, encoding="utf-8", errors="surrogatepass")
    return folder


def dumped(name: str, rows: list) -> str:
    if name == "mm_vet":
        return json.dumps({f"v{number}": row for number, row in enumerate(rows)})
    return json.dumps(rows) if FILES[name].endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
