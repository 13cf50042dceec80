"""What holds for every benchmark: names, and that no file whatever ends in anything but a sentence with its place."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.catalog import BENCHMARKS
from judgelm_jax.records import identity

NAMES = "judgelm pandalm llmbar judgebench rewardbench rewardbench2 mt_bench auto_j faireval alpaca_eval prometheus mm_vet"
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
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "text", "x"]), inner),
    max_leaves=6,
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


def test_the_names_are_those_of_the_contract() -> None:
    assert list(BENCHMARKS) == NAMES.split()
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name
        assert benchmark.protocols
        assert benchmark.reductions
        assert all(protocol.orders in ("forward", "both") for protocol in benchmark.protocols.values())
        assert all(0 <= baseline.value <= 1 and baseline.source for baseline in benchmark.baselines)


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_a_row_as_published_is_read_below_a_folder(tmp_path: Path, name: str) -> None:
    loaded = BENCHMARKS[name].read(place(tmp_path, name, dumped(name, [ROWS[name]])), next(iter(BENCHMARKS[name].reductions)))
    assert len(loaded.records) == len(loaded.labels) == 1
    assert identity(loaded.records[0]) == identity(loaded.labels[0])


@pytest.mark.parametrize("name", list(BENCHMARKS))
@settings(max_examples=60)
@given(data=st.data())
def test_a_row_with_any_one_value_changed_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    row = copy.deepcopy(ROWS[name])
    field = data.draw(st.sampled_from(list(row)))
    if data.draw(st.booleans()):
        row[field] = data.draw(VALUES)
    else:
        del row[field]
    folder = place(tmp_path_factory.mktemp("x"), name, dumped(name, [row]))
    try:
        loaded = BENCHMARKS[name].read(folder, next(iter(BENCHMARKS[name].reductions)))
    except InputError as error:
        assert str(folder) in str(error)  # noqa: PT017 (there need be no error)
        return
    for record in loaded.records:
        json.dumps(record, allow_nan=False)
        assert all(isinstance(value, str) for key, value in record.items() if key.endswith("_body"))


@pytest.mark.parametrize("name", list(BENCHMARKS))
@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "[1]", "null", '"x"', "[[]]", "{", '{"a": 1}', "\ud800", "PAR1", "\x1f\x8b"]
)
def test_a_file_of_anything_else_is_named(tmp_path: Path, name: str, content: str) -> None:
    folder = place(tmp_path, name, content)
    with pytest.raises(InputError, match=str(tmp_path)):
        BENCHMARKS[name].read(folder, next(iter(BENCHMARKS[name].reductions)))


READING = [name for name, benchmark in BENCHMARKS.items() if benchmark.read_predictions]


@pytest.mark.parametrize("name", READING)
@settings(max_examples=40)
@given(data=st.data())
def test_predictions_of_anything_are_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("x")
    benchmark = BENCHMARKS[name]
    loaded = benchmark.read(place(folder, name, dumped(name, [ROWS[name]])), next(iter(benchmark.reductions)))
    fields = {"gpt_result": 1, "results": [], "judgments": [], "scores": [], "output": 0, "score": []}
    row = ROWS[name] | data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys([*ROWS[name], *fields], VALUES)))
    path = folder / "p.json"
    path.write_text(json.dumps({"v0": row} if name == "mm_vet" else [row]))
    try:
        rows = benchmark.read_predictions([path], loaded)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017 (there need be no error)
        return
    assert all("pred_text" in judgment for judgment in rows)
