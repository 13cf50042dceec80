"""Folders that appear whole, written by one process at a time, over nothing that is not theirs."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.card import model_card
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.checkpoints.folders import published
from judgelm_jax.errors import InputError
from judgelm_jax.prompts.prompts import render

SLOW = """
    import sys, time
    from pathlib import Path
    from judgelm_jax.checkpoints.folders import published
    with published(Path(sys.argv[1]), 0) as folder:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        print("writing", flush=True)
        sys.stdin.readline()
"""


def start(target: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW), str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.mark.parametrize("to", ["orbax", "hf"])
def test_of_two_conversions_to_one_target_the_first_wins(tmp_path: Path, write_checkpoint, to: str) -> None:
    write_checkpoint(tmp_path / "source")
    source = open_checkpoint(str(tmp_path / "source"))
    other = start(tmp_path / "b")
    with pytest.raises(InputError, match=r"b: another process writes it right now; wait") as raised:
        convert(source, tmp_path / "b", to)
    assert "disk" not in str(raised.value)
    other.communicate("\n")
    assert other.returncode == 0
    assert [file.name for file in (tmp_path / "b").iterdir()] == ["config.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "source"]


def test_what_a_killed_process_left_does_not_keep_others_out(tmp_path: Path) -> None:
    other = start(tmp_path / "b")
    other.kill()
    other.wait()
    assert (tmp_path / ".b.partial/checkpoint/config.json").exists()
    with published(tmp_path / "b", 0) as folder:
        assert not folder.exists()
        folder.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path: Path, write_checkpoint, monkeypatch) -> None:
    write_checkpoint(tmp_path / "source")
    source = open_checkpoint(str(tmp_path / "source"))

    from judgelm_jax.checkpoints import conversion, folders

    def late(target: Path, size: int, identity: str):
        target.mkdir()
        (target / "config.json").write_text("mine")
        return folders.published(target, size, identity)

    monkeypatch.setattr(conversion, "published", late)
    with pytest.raises(InputError, match="exists already"):
        convert(source, tmp_path / "b", "hf")
    assert (tmp_path / "b/config.json").read_text() == "mine"


@pytest.mark.parametrize("to", ["orbax", "hf"])
@pytest.mark.parametrize("other", ["notes.txt", "README.md", "tokenizer/notes.txt", "results/run1.json"])
def test_overwriting_spares_a_checkpoint_with_other_files(tmp_path: Path, write_checkpoint, to: str, other: str) -> None:
    write_checkpoint(tmp_path / "source", dtype=torch.bfloat16)
    source = open_checkpoint(str(tmp_path / "source"))
    convert(source, tmp_path / "b", to)
    convert(source, tmp_path / "b", "hf" if to == "orbax" else "orbax", overwrite=True)
    convert(source, tmp_path / "b", to, overwrite=True)
    (tmp_path / "b" / other).parent.mkdir(exist_ok=True)
    (tmp_path / "b" / other).write_text("precious")
    with pytest.raises(InputError, match=rf"holds more than a checkpoint \({other.split('/')[0]}\), so it is not overwritten"):
        convert(source, tmp_path / "b", to, overwrite=True)
    assert (tmp_path / "b" / other).read_text() == "precious"


def test_an_export_carries_a_card_with_the_prompt(tmp_path: Path, write_checkpoint) -> None:
    write_checkpoint(tmp_path / "source")
    convert(open_checkpoint(str(tmp_path / "source")), tmp_path / "b", "hf")
    card = (tmp_path / "b/README.md").read_text()
    assert render("pair", "{question}", ["{answer 1}", "{answer 2}"], None) in card
    assert "3 layers" in card
    assert "judgelm-jax" in card
    convert(open_checkpoint(str(tmp_path / "source")), tmp_path / "c", "orbax")
    assert not (tmp_path / "c/README.md").exists()


def test_a_card_says_what_is_known_of_the_training_and_cannot_be_broken_out_of() -> None:
    card = model_card("judge", "7", {"model_type": "llama"}, {"run": {"data_sha256": "abc123"}, "init_from": "a```\n# b"})
    assert '"data_sha256": "abc123"' in card
    assert card.count("```") % 2 == 0
    assert "\n# b" not in card
