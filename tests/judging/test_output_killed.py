"""The files of a run survive a kill, and a failing disk, at any moment."""

import errno
import itertools
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging.stubbed_run import (
    RECORDS,
    Disk,
    check_finished,
    complete,
    fresh_target,
    operations_of,
    shard_lines,
    shard_path,
    work,
)

from judgelm_jax.errors import InputError


def kill_points(operations: Sequence[tuple[str, int]], every_byte: bool = False) -> Iterator[tuple[int, int]]:
    """(operation, bytes of it that reach the disk) for every operation and every tear of a write."""
    for at, (name, size) in enumerate(operations):
        tears = range(size + 1) if every_byte else sorted({0, 1, size // 2, size - 1, size})
        yield from ((at, torn) for torn in (tears if name == "write" else (0,)))


def test_killed_at_any_byte_the_run_goes_on_and_ends_with_the_same_file():
    (operations,) = operations_of([(0, 1)])
    names = {name for name, _ in operations}
    assert names == {"mkdir", "open", "write", "truncate", "fsync", "touch", "replace", "unlink", "rmdir"}
    points = list(kill_points(operations, every_byte=True))
    assert len(points) >= 1000
    for at, torn in points:
        with fresh_target() as target:
            disk = Disk(at, torn)
            before = work(target, resume=False, disk=disk)
            assert disk.dead
            assert not target.exists() or target.read_bytes() == complete(), (at, torn)
            after = work(target)
            assert not set(before) & set(after), (at, torn)
            assert len(after) == len(set(after))
            check_finished(target)


def test_killed_again_while_it_goes_on():
    (operations,) = operations_of([(0, 1)])
    for at, torn in kill_points(operations):
        for again in itertools.count():
            with fresh_target() as target:
                first = work(target, disk=Disk(at, torn))
                disk = Disk(again, torn)
                second = work(target, disk=disk)
                third = work(target)
                assert len(first + second + third) == len({*first, *second, *third}), (at, torn, again)
                check_finished(target)
                if not disk.dead:
                    break


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_any_of_three_shards_is_killed_and_all_start_again_in_any_order(order):
    operations = operations_of([(part, 3) for part in order])
    for place, part in enumerate(order):
        for at, torn in kill_points(operations[place]):
            with fresh_target() as target:
                before = [index for other in order[:place] for index in work(target, other, 3)]
                disk = Disk(at, torn)
                before += work(target, part, 3, disk=disk)
                assert disk.dead
                assert not target.exists() or target.read_bytes() == complete()
                after = [index for other in reversed(order) for index in work(target, other, 3)]
                assert not set(before) & set(after), (at, torn)
                check_finished(target)


@settings(max_examples=200)
@given(
    parts=st.integers(1, 4),
    records=st.integers(0, 9),
    kills=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 60)), max_size=6),
    order=st.permutations(range(4)),
)
def test_whatever_is_killed_how_often_the_result_is_the_same(parts, records, kills, order):
    with fresh_target() as target:
        written = []
        for part, at, torn in kills:
            written += work(target, part % parts, parts, records=records, disk=Disk(at, torn))
        for part in (part for part in order if part < parts):
            written += work(target, part, parts, records=records)
        assert len(written) == len(set(written))
        check_finished(target, records)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_once_anywhere_loses_nothing(error):
    (operations,) = operations_of([(0, 1)])
    for at, torn in kill_points(operations):
        with fresh_target() as target:
            before: list[int] = []
            try:
                before = work(target, disk=Disk(at, torn, error))
            except (InputError, OSError) as raised:
                if operations[at][0] in ("write", "fsync", "replace") and not isinstance(raised, InputError):
                    raise
            else:  # only what tidies up may fail without a word
                assert target.exists()
            kept = shard_lines(target)
            after = work(target)
            assert not set(before + kept) & set(after)
            check_finished(target)


def test_a_full_disk_is_named_with_what_to_do_and_keeps_whole_lines_only(tmp_path):
    target = tmp_path / "judgments.jsonl"
    (operations,) = operations_of([(0, 1)])
    third_row = [at for at, (name, _) in enumerate(operations) if name == "write"][3]  # the first write is the manifest's
    with pytest.raises(InputError, match=r"judgments\.jsonl\.partial: the disk is full; .* free space .* --resume"):
        work(target, disk=Disk(third_row, 20, errno.ENOSPC))
    assert len(shard_lines(target)) == 2
    assert shard_path(target).read_bytes().endswith(b"}\n")
    assert len(work(target)) == RECORDS - 2
    check_finished(target)
