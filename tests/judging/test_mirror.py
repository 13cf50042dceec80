"""Judgments in an object store: pieces that appear whole, a run that goes on anywhere, one output at the end."""

import contextlib
import json
import shutil
import time
from pathlib import Path

import pytest
from object_store import ObjectStore

from judgelm_jax.errors import InputError
from judgelm_jax.judging import mirror, output
from judgelm_jax.storage import object_storage

COUNT = 12


class Killed(BaseException):
    """Ends a run as a kill does: nothing more is copied."""


def judge(store: ObjectStore, folder: Path, judged: list[int], until: int = COUNT, resume: bool = True) -> None:
    """A run that judges the records that remain, or dies at `until`; `judged` notes which. Each write is copied."""
    target = folder / "run/judgments.jsonl"
    with (
        mirror.mirrored(f"{store.url}/out/judgments.jsonl", target),
        output.open_shard(target, {"model": "m"}, COUNT, 0, 1, resume) as shard,
    ):
        assert shard is not None
        for index in range(until):
            if not shard.done[index]:
                shard.write(index, {"question_id": index, "text": "ü" * index})
                judged.append(index)
                time.sleep(0.03)
        if until < COUNT:
            raise Killed
        shard.finish()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "SECONDS", 0.02)


def rows(store: ObjectStore) -> list[dict]:
    return [json.loads(line) for line in store.content("out/judgments.jsonl").splitlines()]


def test_an_undisturbed_run_leaves_one_object_and_its_manifest(object_store: ObjectStore, tmp_path: Path) -> None:
    judge(object_store, tmp_path, [])
    assert object_store.names() == ["out/judgments.jsonl", "out/judgments.jsonl.manifest.json"]
    assert [row["question_id"] for row in rows(object_store)] == list(range(COUNT))


@pytest.mark.parametrize("every", [None, 3, 5], ids=["sound", "a third fails", "a fifth fails"])
def test_a_killed_run_goes_on_on_another_machine(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int | None
) -> None:
    object_store.faults.every = every
    monkeypatch.setattr(object_storage.time, "sleep", lambda _: None)
    first: list[int] = []
    init = mirror._Copies.__init__
    monkeypatch.setattr(mirror._Copies, "__init__", few_copies(init))  # a kill leaves out what was not copied yet
    with pytest.raises(Killed):
        judge(object_store, tmp_path / "a", first, until=7)
    monkeypatch.setattr(mirror._Copies, "__init__", init)
    pieces = [name for name in object_store.names() if ".partial/judgments-" in name]
    assert pieces
    copied = b"".join(object_store.content(name) for name in pieces).splitlines()
    kept = [json.loads(line.partition(b"\t")[2])["question_id"] for line in copied]
    assert kept == first[: len(kept)]
    shutil.rmtree(tmp_path / "a")
    second: list[int] = []
    judge(object_store, tmp_path / "b", second)
    assert second == list(range(len(kept), COUNT))
    object_store.faults.every = None
    assert [row["question_id"] for row in rows(object_store)] == list(range(COUNT))
    assert object_store.names() == ["out/judgments.jsonl", "out/judgments.jsonl.manifest.json"]


def few_copies(init):
    def initialize(copies, *arguments):
        init(copies, *arguments)
        bring, calls = copies.bring_up_to_date, []

        def sometimes() -> None:
            calls.append(None)
            if copies._copied == 0 or len(calls) < 4:
                bring()

        copies.bring_up_to_date = sometimes

    return initialize


def test_a_complete_output_is_refused_without_resume_and_left_as_it_is_with_it(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    judge(object_store, tmp_path / "a", [])
    before = object_store.content("out/judgments.jsonl")
    with pytest.raises(InputError, match="exists already"):
        judge(object_store, tmp_path / "b", [], resume=False)
    target = tmp_path / "c/run/judgments.jsonl"
    with mirror.mirrored(f"{object_store.url}/out/judgments.jsonl", target):
        assert output.is_complete(target, resume=True)
        assert target.read_bytes() == before
        assert (tmp_path / "c/run/judgments.jsonl.manifest.json").is_file()
    assert object_store.content("out/judgments.jsonl") == before


def test_what_follows_a_gap_is_judged_again(object_store: ObjectStore, tmp_path: Path) -> None:
    with contextlib.suppress(Killed):
        judge(object_store, tmp_path / "a", [], until=8)
    pieces = [name for name in object_store.names() if ".partial/judgments-" in name]
    assert len(pieces) > 2
    object_store.client.delete_object(Bucket="judge", Key=pieces[1])
    whole = object_store.content(pieces[0]).count(b"\n")
    judged: list[int] = []
    judge(object_store, tmp_path / "b", judged)
    assert judged == list(range(whole, COUNT))
    assert [row["question_id"] for row in rows(object_store)] == list(range(COUNT))


def test_two_runs_at_once_are_noticed(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_shard = output.open_shard

    @contextlib.contextmanager
    def beside_another(*arguments):
        with open_shard(*arguments) as shard:
            object_store.put("out/judgments.jsonl.partial/judgments-000000000000000.jsonl", b"0\t{}\n")
            yield shard

    monkeypatch.setattr(output, "open_shard", beside_another)
    with pytest.raises(InputError, match=r"judgments-0+\.jsonl: another process writes it"):
        judge(object_store, tmp_path, [])
    assert "out/judgments.jsonl" not in object_store.names()
