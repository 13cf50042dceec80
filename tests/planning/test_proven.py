"""The table of proven configurations."""

from pathlib import Path

import pytest

from judgelm_jax.devices.hardware import GIB
from judgelm_jax.errors import InputError
from judgelm_jax.planning import proven
from judgelm_jax.planning.topology import parse

TABLE = Path(proven.__file__).with_name("PROVEN.md")


def begins(text):
    return [tuple(cell.strip() for cell in line.split("|")[1:5]) for line in text.splitlines() if line.startswith("| ")][1:]


def test_the_table_has_every_row_once_and_each_fits():
    text = TABLE.read_text(encoding="utf-8")
    assert begins(text)[1:] == list(proven.ROWS)  # behind the line under the head
    assert text.count(" | yes | ") == len(proven.ROWS)


def test_a_row_asks_for_the_weights_that_it_names():
    floats, int8 = (proven.question_of(name, "scores", parse("cpu:1"), "data:-1") for name in ("7b", "7b int8"))
    assert (floats.model.int8, int8.model.int8) == (False, True)
    assert floats.model.num_layers == int8.model.num_layers == 32
    assert floats.training is None
    assert proven.question_of("33b", "train", parse("cpu:8"), "fsdp:-1").training is not None


def test_some_rows_are_made_anew_and_the_others_stay(tmp_path, monkeypatch):
    file = tmp_path / "PROVEN.md"
    file.write_bytes(TABLE.read_bytes())
    found = {
        "device_bytes": {"total": 2 * GIB, "capacity": 4 * GIB},
        "shape": {"slots": 3},
        "share_of_peak": 0.25,
        "tokens_per_second": 1234.5,
        "fits": True,
        "bound": "memory",
        "versions": {"jax": "0"},
    }
    monkeypatch.setattr(proven, "plan", lambda question: found)
    said = []
    proven.regenerate(file, "int8 | explain", said.append)
    assert said == ["| 7b int8 | explain | v5e:1 | data:-1 | slots 3 | 2.0 of 4.0 | yes | 25 % | 1,234 | memory |"]
    before, after = (path.read_text(encoding="utf-8").splitlines() for path in (TABLE, file))
    assert [line for line in after if line not in before] == [*said, 'Versions: {"jax": "0"}.']
    assert len(before) == len(after)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(InputError, match="is no table of proven configurations"):
        proven.regenerate(tmp_path / "notes.md", "", print)
    assert (tmp_path / "notes.md").read_text() == "mine"
