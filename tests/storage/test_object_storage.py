"""Objects of an S3 server: looked at, fetched and put, also where it is busy, slow, or cuts answers off."""

from pathlib import Path

import pytest
from object_store import ObjectStore

from judgelm_jax.errors import InputError
from judgelm_jax.storage import object_storage


@pytest.fixture
def store(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setattr(object_storage.time, "sleep", lambda _: None)
    return object_store


CONTENT = bytes(range(256)) * 3000


@pytest.mark.parametrize("fault", [[], ["busy"], ["slow"], ["cut"] * 2, ["busy", "cut", "slow", "cut"]], ids=str)
def test_an_object_comes_whole_or_not_at_all(store: ObjectStore, tmp_path: Path, fault: list[str]) -> None:
    url = store.put("a/b.bin", CONTENT)
    store.faults.pending = list(fault)
    (found,) = object_storage.find(url)
    store.faults.pending = list(fault)
    object_storage.fetch(found, tmp_path / "x/b.bin")
    assert len(store.faults.pending) < max(1, len(fault))  # fsspec itself may have asked for the rest only
    assert (tmp_path / "x/b.bin").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["b.bin"]
    store.faults.pending = list(fault)
    assert object_storage.read(found) == CONTENT


@pytest.mark.parametrize("fault", [[], ["busy"], ["slow"], ["cut"] * 2], ids=str)
def test_what_is_put_arrives(store: ObjectStore, tmp_path: Path, fault: list[str]) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    store.faults.pending = list(fault)
    object_storage.put(tmp_path / "a", f"{store.url}/put")
    assert store.content("put") == CONTENT
    store.faults.pending = list(fault)
    object_storage.create(b"small", f"{store.url}/made-{''.join(fault)}")
    with pytest.raises(InputError, match="another process writes it"):
        object_storage.create(b"other", f"{store.url}/made-{''.join(fault)}")


def test_an_object_that_changes_has_another_version(store: ObjectStore) -> None:
    first = object_storage.find(store.put("v", b"one"))
    assert object_storage.find(f"{store.url}/v") == first
    assert object_storage.find(store.put("v", b"two")) != first


def test_objects_below_a_name_are_a_folder(store: ObjectStore) -> None:
    for name in ("m/config.json", "m/deep/er/x", "mother"):
        store.put(name, b"-")
    for url in (f"{store.url}/m", f"{store.url}/m/"):
        assert [one.url for one in object_storage.find(url)] == [f"{store.url}/m/config.json", f"{store.url}/m/deep/er/x"]
    assert object_storage.find(f"{store.url}/absent") == []
    object_storage.remove(object_storage.find(f"{store.url}/m"))
    assert "mother" in store.names()
    assert not any(name.startswith("m/") for name in store.names())


@pytest.mark.slow
def test_a_store_that_stays_silent_is_one_line(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = object_storage.find(store.put("silent", b"x"))
    monkeypatch.setattr(object_storage, "_ATTEMPTS", 1)
    store.faults.pending = ["busy"] * 200
    with pytest.raises(InputError, match=r"s3://judge/silent: the store does not answer .*; check the network"):
        object_storage.fetch(found, tmp_path / "x")
    assert not list(tmp_path.iterdir())
    store.faults.pending = []
    with pytest.raises(InputError, match=r"gopher://a/b|gopher://: no such store"):
        object_storage.find("gopher://a/b")


def test_no_name_in_a_store_leads_out_of_the_local_copy() -> None:
    assert object_storage.inside("s3://b/m/deep/x", "s3://b/m") == "deep/x"
    for name in ("s3://b/m/../x", "s3://b/m/a/../../x", "s3://b/m//x", "s3://b/m/."):
        with pytest.raises(InputError, match="is no name of a file"):
            object_storage.inside(name, "s3://b/m")
