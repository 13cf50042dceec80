"""Batches are read back: tokens become text again, and the text must say what the records say."""

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.data import pipeline
from judgelm_jax.data.augmentation import augment
from judgelm_jax.data.pipeline import Plan, batches, plan
from judgelm_jax.data.tokens import tokenize
from judgelm_jax.data.training_file import TrainingFile, check_training_file
from judgelm_jax.errors import InputError
from judgelm_jax.tokens.tokenization import Tokenizer, load_tokenizer
from judgelm_jax.training_config import DataConfig, RecipeConfig

EOS = 2
LENGTH = 1024
Batch = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def tokenizer(laboratory_checkpoint: Path) -> Tokenizer:
    return load_tokenizer(laboratory_checkpoint)


def record_of(
    number: int, cat: float, dog: float, cat_first: bool, has_reference: bool, words: int = 0, unsafe: bool = False
) -> dict[str, Any]:
    """A pair of answers of which one says `cat` and one `dog`, and judgments that say which is where, with its score."""
    names = ("cat", "dog") if cat_first else ("dog", "cat")
    scores = [cat, dog] if cat_first else [dog, cat]
    record: dict[str, Any] = {
        "question_id": number,
        "question_body": f"question {number}",
        "answer1_body": f"{names[0]} " + "long " * words,
        "answer2_body": f"{names[1]}",
        "text": f"{scores[0]:g} {scores[1]:g}\nAssistant 1 wrote {names[0]}. Assistant 2 wrote {names[1]}.",
        "score": scores,
    }
    if unsafe:
        record["text"] += " I like the latter."
    if has_reference:  # the judgment with reference gives each one point less
        scores = [max(0, score - 1) for score in scores]
        record |= {
            "reference": {"text": f"truth {number}"},
            "text_w_reference": f"{scores[0]:g} {scores[1]:g}\nBy the reference, Assistant 1 wrote {names[0]}. "
            f"Assistant 2 wrote {names[1]}.",
            "score_w_reference": scores,
        }
    return record


def written(folder: Path, records: list[dict[str, Any]]) -> TrainingFile:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return check_training_file(path)


def documents_of(batch: Batch, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """Prompt and target, as text, of every document in a batch."""
    documents = []
    for row in range(len(batch["tokens"])):
        targets = batch["target_indices"][row][batch["target_mask"][row] == 1] + 1
        assert batch["tokens"][row][targets].tolist() == batch["target_ids"][row][: len(targets)].tolist()
        for segment in range(1, batch["segments"][row].max() + 1):
            indices = np.flatnonzero(batch["segments"][row] == segment)
            assert batch["positions"][row][indices].tolist() == list(range(len(indices)))
            learned = indices[np.isin(indices, targets)]
            assert learned.tolist() == list(range(learned[0], indices[-1] + 1))
            ids = batch["tokens"][row]
            assert ids[indices[0]] == tokenizer.bos_id
            assert ids[indices[-1]] == EOS
            documents.append(
                (
                    tokenizer.decode(ids[indices[0] : learned[0]]),
                    tokenizer.decode(ids[indices]).removeprefix(tokenizer.decode(ids[indices[0] : learned[0]])),
                )
            )
    return documents


def joined(parts: list[Batch]) -> Batch:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def assert_same(one: Batch, other: Batch) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@dataclasses.dataclass
class Run:
    """A run's plan and what its batches need."""

    records: list[dict[str, Any]]
    file: TrainingFile
    tokenizer: Tokenizer
    config: DataConfig
    recipe: RecipeConfig
    plan: Plan

    def batches(self, *placement: int) -> list[Batch]:
        return list(batches(self.plan, self.file, self.tokenizer, EOS, self.config, self.recipe, *placement))


def run_of(folder: Path, tokenizer: Tokenizer, records: list[dict[str, Any]], **settings: Any) -> Run:
    fields = {field.name for field in dataclasses.fields(DataConfig)}
    config = DataConfig(**{"length": LENGTH, **{name: value for name, value in settings.items() if name in fields}})
    recipe = RecipeConfig(**{"batch": 4, **{name: value for name, value in settings.items() if name not in fields}})
    file = written(folder, records)
    return Run(records, file, tokenizer, config, recipe, plan(file, tokenizer, EOS, config, recipe))


SCORES = st.sampled_from([1.0, 2.5, 7.0, 10.0])
RECORDS = st.lists(st.tuples(SCORES, SCORES, st.booleans(), st.booleans()), min_size=1, max_size=9).map(
    lambda rows: [record_of(number, *row) for number, row in enumerate(rows)]
)


@given(records=RECORDS, packing=st.booleans(), seed=st.integers(0, 99), processes=st.sampled_from([1, 2, 4]))
def test_labels_follow_answers_in_every_epoch_and_process(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: Tokenizer,
    records: list[dict[str, Any]],
    packing: bool,
    seed: int,
    processes: int,
) -> None:
    run = run_of(tmp_path_factory.mktemp("run"), tokenizer, records, packing=packing, seed=seed, epochs=3, length=2 * LENGTH)
    parts = [run.batches(process, processes) for process in range(processes)]
    seen: dict[int, list[int]] = {epoch: [] for epoch in range(3)}
    for step, own in enumerate(zip(*parts, strict=True)):
        for prompt, target in documents_of(joined(list(own)), tokenizer):
            number = int(re.search(r"question (\d+)", prompt)[1])  # type: ignore[index]
            first, second = re.findall(r"Answer]\n(cat|dog)", prompt)
            record = records[number]
            with_reference = f"[Reference Answer]\ntruth {number}\n" in prompt
            scores = record["score_w_reference" if with_reference else "score"]
            if not record["answer1_body"].startswith(first):
                scores = scores[::-1]
            line, explanation = target.split("\n")
            assert [float(score) for score in line.split()] == scores
            assert explanation.startswith("By the reference, ") == with_reference
            assert dict(re.findall(r"Assistant ([12]) wrote (cat|dog)", explanation)) == {"1": first, "2": second}
            seen[run.plan.epoch_of(step)].append(number)
    assert all(sorted(numbers) == list(range(len(records))) for numbers in seen.values())


@given(records=RECORDS, packing=st.booleans(), epochs=st.integers(1, 2), data=st.data())
def test_a_run_goes_on_at_any_step_in_any_process(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: Tokenizer,
    records: list[dict[str, Any]],
    packing: bool,
    epochs: int,
    data: st.DataObject,
) -> None:
    run = run_of(tmp_path_factory.mktemp("run"), tokenizer, records, packing=packing, epochs=epochs, batch=2)
    whole = run.batches()
    assert len(whole) == run.plan.steps
    step = data.draw(st.integers(0, run.plan.steps))
    for batch, expected in zip(run.batches(0, 1, step), whole[step:], strict=True):
        assert_same(batch, expected)
    iterator = batches(run.plan, run.file, tokenizer, EOS, run.config, run.recipe)
    for _ in range(step):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    halves = [batches(run.plan, run.file, tokenizer, EOS, run.config, run.recipe, process, 2) for process in (0, 1)]
    for half in halves:
        half.set_state(state)
    for expected in whole[step:]:
        assert_same(next(iterator), expected)
        assert_same(joined([next(half) for half in halves]), expected)
    assert halves[0].get_state() == halves[1].get_state() == iterator.get_state() == {"next_index": run.plan.steps}
    iterator.set_state(state)
    assert [len(batch["tokens"]) for batch in iterator] == [2] * (run.plan.steps - step)


def thirty_records() -> list[dict[str, Any]]:
    return [record_of(n, 1 + n % 9, 10, n % 2 == 0, n % 3 == 0, words=n * 7, unsafe=n % 5 == 0) for n in range(30)]


@pytest.mark.parametrize("packing", [False, True])
def test_rows_hold_exactly_the_examples_of_the_epoch(tmp_path: Path, tokenizer: Tokenizer, packing: bool) -> None:
    run = run_of(tmp_path, tokenizer, thirty_records(), packing=packing, epochs=2, seed=3)
    before = copy.deepcopy([run.file[n] for n in range(30)])
    rows = run.batches()
    assert [run.file[n] for n in range(30)] == before
    for epoch in range(2):
        steps = [step for step in range(run.plan.steps) if run.plan.epoch_of(step) == epoch]
        assert len(steps) == run.plan.steps_per_epoch[epoch]
        expected = {}
        for record in run.records:
            tokens = tokenize(augment(record, run.config, 3, epoch), tokenizer, EOS, LENGTH, "truncate")
            assert tokens is not None
            expected[str(record["question_id"])] = tokens.ids.tolist()
        found: list[list[int]] = []
        identities: list[str] = []
        for step in steps:
            batch = rows[step]
            assert batch["tokens"].shape == batch["segments"].shape == batch["positions"].shape == (4, LENGTH)
            assert batch["target_ids"].shape == batch["target_indices"].shape == (4, run.plan.targets)
            assert packing or batch["segments"].max() <= 1
            identities += run.plan.identities(step)
            for row in range(4):
                own = batch["segments"][row]
                assert not batch["tokens"][row][own == 0].any()
                found += [batch["tokens"][row][own == segment].tolist() for segment in range(1, own.max() + 1)]
        assert found == [expected[identity] for identity in identities]
        assert sorted(identities, key=int) == list(expected)
    assert run.plan.steps == sum(run.plan.steps_per_epoch)


@pytest.mark.parametrize("less", [0, 1, 3])
@pytest.mark.parametrize("packing", [False, True])
def test_counts_are_those_of_the_batches(tmp_path: Path, tokenizer: Tokenizer, packing: bool, less: int) -> None:
    """Also where the run ends some steps before its last epoch does."""
    length = 640  # too few for the longest answers
    run = run_of(tmp_path, tokenizer, thirty_records(), packing=packing, epochs=3, length=length)
    if less:
        steps = run.plan.steps - less
        run = run_of(tmp_path, tokenizer, thirty_records(), packing=packing, epochs=3, length=length, steps=steps)
    rows = run.batches()
    dropped = 0
    for epoch in range(3):
        own = joined([rows[step] for step in range(run.plan.steps) if run.plan.epoch_of(step) == epoch])
        documents = documents_of(own, tokenizer)
        used = int((own["segments"] > 0).sum())
        trained = {id for step in range(run.plan.steps) if run.plan.epoch_of(step) == epoch for id in run.plan.identities(step)}
        records = [record for record in run.records if str(record["question_id"]) in trained]
        examples = [augment(record, run.config, 0, epoch) for record in records]
        assert run.plan.counts(epoch) == {
            "examples": len(records),
            "swapped": sum(example.answers[1] != record["answer2_body"] for example, record in zip(examples, records)),  # noqa: B905
            "with_reference": sum("[Reference Answer]" in prompt for prompt, _ in documents),
            "shortened": sum("[shortened]" in prompt for prompt, _ in documents),
            "explanations_dropped": sum("\n" not in target.strip() for _, target in documents),
            "overflow": 0,
            "teacher_failed": 0,
            "rows": len(own["tokens"]),
            "tokens": used,
            "target_tokens": own["target_mask"].sum(),
            "padding": pytest.approx(1 - used / own["tokens"].size),
        }
        assert run.plan.counts(epoch)["shortened"] > 0
        dropped += run.plan.counts(epoch)["explanations_dropped"]
    assert dropped > 0
    assert run.plan.targets == max(int(batch["target_mask"].sum(1).max()) for batch in rows)


def test_nothing_depends_on_the_order_of_the_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    records = thirty_records()
    (tmp_path / "other").mkdir()
    run = run_of(tmp_path, tokenizer, records, packing=True, epochs=2)
    other = run_of(tmp_path / "other", tokenizer, records[::-1], packing=True, epochs=2)
    for one, same in zip(run.batches(), other.batches(), strict=True):
        assert_same(one, same)


def test_epochs_and_seeds_have_their_own_order(tmp_path: Path, tokenizer: Tokenizer) -> None:
    orders = set()
    for seed in range(2):
        run = run_of(tmp_path, tokenizer, thirty_records(), epochs=2, seed=seed, batch=30)
        orders |= {tuple(run.plan.identities(step)) for step in range(2)}
    assert len(orders) == 4


def test_the_last_batch_of_an_epoch_is_filled_with_empty_rows(tmp_path: Path, tokenizer: Tokenizer) -> None:
    run = run_of(tmp_path, tokenizer, thirty_records()[:5], epochs=2)
    assert run.plan.steps_per_epoch == [2, 2]
    last = run.batches()[1]
    for name, array in last.items():
        assert array[0].any(), name
        assert not array[1:].any(), name
    assert len(run.plan.identities(1)) == 1


def test_steps_end_the_run(tmp_path: Path, tokenizer: Tokenizer) -> None:
    records = thirty_records()[:8]
    whole = run_of(tmp_path, tokenizer, records, epochs=3)
    short = run_of(tmp_path, tokenizer, records, epochs=3, steps=3)
    assert (whole.plan.steps, short.plan.steps) == (6, 3)
    assert [short.plan.epoch_of(step) for step in range(3)] == [0, 0, 1]
    for one, same in zip(short.batches(), whole.batches(), strict=False):
        np.testing.assert_array_equal(one["tokens"], same["tokens"])
    with pytest.raises(IndexError):
        short.plan.epoch_of(3)
    with pytest.raises(InputError, match=r"training.steps=7: 3 epochs of .* have 6; lower it, or raise"):
        run_of(tmp_path, tokenizer, records, epochs=3, steps=7)


def test_overflow_follows_the_config(tmp_path: Path, tokenizer: Tokenizer) -> None:
    records = [record_of(n, 1, 2, True, False, words=400 * (n == 2)) for n in range(4)]
    for on_overflow, shortened, overflow in (("truncate", 1, 0), ("skip", 0, 1)):
        run = run_of(tmp_path, tokenizer, records, on_overflow=on_overflow, length=600, epochs=1)
        counts = run.plan.counts(0)
        assert (counts["shortened"], counts["overflow"], counts["examples"]) == (shortened, overflow, 4 - overflow)
        assert ("2" in run.plan.identities(0)) == (overflow == 0)
    with pytest.raises(InputError, match=r"train.jsonl:3: the record '2' has .*; raise --config.data.length"):
        run_of(tmp_path, tokenizer, records, on_overflow="error", length=600)
    with pytest.raises(InputError, match=r"train.jsonl: no record fits a row of 50 tokens; raise --config.data.length"):
        run_of(tmp_path, tokenizer, records, length=50)
    # What does not fit with empty answers either is left out and counted.
    records[1]["question_body"] = "long " * 600
    run = run_of(tmp_path, tokenizer, records, length=600, epochs=1)
    assert (run.plan.counts(0)["overflow"], run.plan.counts(0)["shortened"]) == (1, 1)


def test_a_record_is_tokenized_once_a_variant(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def counting(examples: list[Any], *rest: Any) -> Any:
        measured.extend((example.identity, example.answers, example.reference) for example in examples)
        return measure(examples, *rest)

    measure = pipeline.measure
    monkeypatch.setattr(pipeline, "measure", counting)
    run_of(tmp_path, tokenizer, thirty_records(), epochs=20)
    assert len(measured) == len(set(measured))
    assert len(measured) == 20 * 2 + 10 * 4  # every third record has a judgment with reference


def test_processes_must_divide_the_batch(tmp_path: Path, tokenizer: Tokenizer) -> None:
    run = run_of(tmp_path, tokenizer, thirty_records()[:3])
    with pytest.raises(InputError, match=r"training.batch=4: does not divide among 3 processes; choose a multiple"):
        run.batches(0, 3)
    with pytest.raises(ValueError, match="start 5"):
        run.batches(0, 1, 5)


def test_a_file_that_changes_ends_the_run(tmp_path: Path, tokenizer: Tokenizer) -> None:
    run = run_of(tmp_path, tokenizer, thirty_records()[:4])
    with run.file.path.open("r+b") as stream:
        stream.write(b"x" * 10_000)
    with pytest.raises(InputError, match="has changed since the file was checked"):
        run.batches()


def test_real_records_packed(tmp_path: Path, shared: Path) -> None:
    """With the LLaMA tokenizer and the published length, rows of real judgments are above 85 % full."""
    tokenizer = load_tokenizer(shared / "data/tokenizers/llama_hf")
    file = check_training_file(shared / "data/reviews/gpt4_pairs_train.jsonl").rows(np.arange(600))
    config, recipe = DataConfig(packing=True), RecipeConfig(batch=8, epochs=1)
    planned = plan(file, tokenizer, EOS, config, recipe)
    assert planned.counts(0)["padding"] < 0.15
    batch = next(batches(planned, file, tokenizer, EOS, config, recipe))
    for prompt, target in documents_of(batch, tokenizer):
        assert prompt.endswith("### Response:")
        assert re.match(r"[\d.]+ [\d.]+\n.*Assistant [12]", target, re.DOTALL)
