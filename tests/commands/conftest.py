"""Records to judge, the flags of a run, judges that are loaded once; training files, and a run that nothing disturbs."""

import copy
import dataclasses
from pathlib import Path

import pytest
from judge_command import COUNT, write
from train_command import CONFIG, ended, start
from train_command import arguments as train_arguments

from judgelm_jax import laboratory
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.judge import Judge
from judgelm_jax.records.json_lines import dump_line


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    pairs = laboratory.make_pairs(COUNT, seed=3)
    return write(tmp_path_factory.mktemp("records") / "records.jsonl", [pair.record for pair in pairs])


@pytest.fixture
def arguments(laboratory_checkpoint, records, tmp_path) -> list[str]:
    target = tmp_path / "judgments.jsonl"
    return [f"--model={laboratory_checkpoint}", f"--input={records}", f"--output={target}", "--dtype=float32"]


@pytest.fixture(scope="module")
def loaded() -> dict[JudgeConfig, Judge]:
    return {}


@pytest.fixture
def loaded_once(monkeypatch, loaded) -> None:
    """Runs of this module that need the same programs share them, in place of compiling their own."""
    load = Judge.load

    def load_once(
        model: str, mesh: str, settings: JudgeConfig, model_id: str, base: str | None = None, context: int | None = None
    ) -> Judge:
        shared = dataclasses.replace(settings, orders=None, on_overflow="truncate")
        if shared not in loaded:
            loaded[shared] = load(model, mesh, shared, model_id, base, context)
        own = copy.copy(loaded[shared])
        own.settings, own.model_id = settings, model_id
        return own

    monkeypatch.setattr(Judge, "load", load_once)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    laboratory.write_tokenizer(folder, sentences=True)  # a prompt is some 20 tokens
    (folder / "config.py").write_text(CONFIG)
    for name, count, seed in (("train", 160, 1), ("held-out", 16, 2)):
        rows = laboratory.training_records(count, seed=seed)
        (folder / f"{name}.jsonl").write_text("".join(dump_line(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """A run that nothing disturbs, on one device."""
    output = tmp_path_factory.mktemp("whole") / "run"
    code, out, err = ended(start(train_arguments(files, output, f"--json={files / 'summary.json'}")))
    assert code == 0, err
    return output, out
