"""What holds for every command: help, version, missing and repeated flags, and the file of `--json`."""

import importlib
import json
import math
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from absl import flags

import judgelm_jax
from judgelm_jax import commands
from judgelm_jax.commands import command_line
from judgelm_jax.errors import InputError

NAMES = sorted(module.name for module in pkgutil.iter_modules(commands.__path__) if module.name != "command_line")


def command(name: str) -> ModuleType:
    return importlib.import_module(f"judgelm_jax.commands.{name}")


def run(name: str, *arguments: str) -> int:
    module = command(name)
    return command_line.run(module.main, module.FLAGS, name, arguments)


def one_line(capfd: pytest.CaptureFixture[str], name: str) -> str:
    captured = capfd.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith(f"judgelm-{name}: ")
    return captured.err


def required(name: str) -> list[str]:
    """The flags that absl holds for required."""
    values = command(name).FLAGS
    return [flag for flag in values if any("must have a value" in rule.message for rule in values[flag].validators)]


@pytest.mark.parametrize("name", NAMES)
def test_version_and_help_are_printed_whatever_else_is_wrong(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--version") == 0
    assert capfd.readouterr().out == f"judgelm-{name} {judgelm_jax.__version__}\n"
    assert run(name, "--help", "--nonsense") == 0
    assert capfd.readouterr().out.startswith(f"judgelm-{name}: ")


def test_the_version_is_that_of_the_package() -> None:
    setup = (Path(judgelm_jax.__file__).parents[1] / "setup.py").read_text(encoding="utf-8")
    assert f'version="{judgelm_jax.__version__}"' in setup


@pytest.mark.parametrize("name", [name for name in NAMES if required(name)])
def test_missing_flags_are_named_in_plain_words(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(name) == 2
    line = one_line(capfd, name)
    assert "None" not in line
    assert all(f"--{flag}" in line for flag in required(name)), line
    assert f"{'is' if len(required(name)) == 1 else 'are'} missing; see --help" in line


def test_commands_with_required_flags_are_found() -> None:
    assert {"judge", "evaluate", "train", "convert", "prepare"} <= {name for name in NAMES if required(name)}


SINGLE = [
    (name, flag)
    for name in NAMES
    for flag in command(name).FLAGS
    if flag != "config" and "." not in flag and not isinstance(command(name).FLAGS[flag], flags.MultiFlag)
]


@pytest.mark.parametrize(("name", "flag"), SINGLE)
def test_a_single_flag_given_twice_is_an_error(name: str, flag: str, capfd: pytest.CaptureFixture[str]) -> None:
    value = command(name).FLAGS[flag]
    if isinstance(value, flags.BooleanFlag):
        twice = [f"--{flag}", f"--no{flag}"]
    else:
        inside = [value.parser.lower_bound, value.parser.upper_bound] if isinstance(value.parser, flags.FloatParser) else []
        bounds = [str(bound) for bound in inside if bound is not None]
        one = getattr(value.parser, "enum_values", None) or bounds or ["100", "101"]
        twice = [f"--{flag}={one[0]}", f"--{flag}", str(one[-1])]
    known = {"to": "orbax", "format": "csv"}
    others = [f"--{other}={known.get(other, 'x')}" for other in required(name) if other not in ("config", flag)]
    if name == "train":
        others.append(f"--config={Path(__file__).parents[2] / 'configs' / 'tiny.py'}")
    assert run(name, *others, *twice) == 2
    assert f"--{flag} is given 2 times; give it once" in one_line(capfd, name)


def test_an_overridden_field_given_twice_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    config = Path(__file__).parents[2] / "configs" / "tiny.py"
    fields = ["--config.training.learning_rate=1e-4", "--config.training.learning_rate=2e-4"]
    assert run("train", f"--config={config}", "--data=d", "--output=o", *fields) == 2
    assert "--config.training.learning_rate is given 2 times" in one_line(capfd, "train")


def arguments_of(name: str, folder: Path) -> list[str]:
    """Flags with which the command comes to look at `--json`; nothing that they name needs to exist for that."""
    given = {
        "ablate": [f"--output={folder / 'o'}"],
        "bench": [],
        "benchmark": [
            "--name=pandalm",
            f"--data={folder / 'd.json'}",
            f"--predictions={folder / 'p'}",
            f"--output={folder / 'o'}",
        ],
        "calibrate": [
            f"--judgments={folder / 'j.jsonl'}",
            f"--labels={folder / 'l.jsonl'}",
            f"--output={folder / 'c.json'}",
        ],
        "chat": [f"--model={folder / 'm'}", f"--input={folder / 'i.jsonl'}"],
        "convert": [f"--source={folder / 's'}", f"--target={folder / 't'}", "--to=orbax"],
        "evaluate": [f"--labels={folder / 'l.jsonl'}", f"--predictions={folder / 'p.jsonl'}"],
        "export": [f"--judgments={folder / 'j.jsonl'}", "--format=csv", f"--output={folder / 'o.csv'}"],
        "judge": [f"--model={folder / 'm'}", f"--input={folder / 'i.jsonl'}", f"--output={folder / 'o.jsonl'}"],
        "plan": ["--model=7b", "--topology=cpu:1"],
        "prepare": [f"--answers={folder / 'a.jsonl'}", f"--output={folder / 'o.jsonl'}"],
        "quickstart": [f"--output={folder / 'o'}"],
        "rank": [f"--judgments={folder / 'j.jsonl'}"],
        "status": [f"--path={folder / 'o.jsonl'}"],
        "train": [
            f"--config={Path(__file__).parents[2] / 'configs' / 'tiny.py'}",
            f"--data={folder / 'd.jsonl'}",
            f"--output={folder / 'o'}",
        ],
    }
    return given[name]


def test_every_command_writes_its_summary_as_json() -> None:
    assert [name for name in NAMES if {"json", "overwrite"} - set(command(name).FLAGS)] == []


@pytest.mark.parametrize("name", NAMES)
def test_json_never_replaces_a_file_unasked(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text('{"output": "mine"}', encoding="utf-8")
    resume = ["--resume"] if "resume" in command(name).FLAGS else []
    for arguments, says in (
        ([f"--json={kept}"], f"{kept}: exists already; choose another name, or pass --overwrite"),
        ([f"--json={kept}", *resume], f"{kept}: exists already"),  # it is no summary of this run
        ([f"--json={tmp_path}"], "no plain file"),
        ([f"--json={kept}/x.json"], "is no folder"),
        (["--json=/proc/x.json"], "nothing can be written to /proc"),
    ):
        assert run(name, *arguments_of(name, tmp_path), *arguments) == 2
        assert says in one_line(capfd, name)
    assert kept.read_text(encoding="utf-8") == '{"output": "mine"}'


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name in ("convert", "evaluate", "export", "judge", "prepare", "train")]
)
def test_json_is_none_of_the_inputs_and_outputs(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for argument in arguments_of(name, tmp_path):
        path = argument.partition("=")[2]
        if path.startswith(str(tmp_path)) and not argument.startswith("--model"):
            assert run(name, *arguments_of(name, tmp_path), f"--json={path}", "--overwrite") == 2
            assert "also read or written" in one_line(capfd, name)


def test_the_summary_of_the_same_run_may_be_replaced(tmp_path: Path) -> None:
    path, own = tmp_path / "s.json", {"command": "judge", "output": "o.jsonl", "shard": "0/1"}
    command_line.check_json(str(path), False, [], own)
    command_line.write_json(str(path), own | {"agreement": math.nan, "each": [1.5, math.inf]})
    assert json.loads(path.read_text(encoding="utf-8")) == own | {"agreement": None, "each": [1.5, None]}
    command_line.check_json(str(path), False, [], own)
    command_line.check_json(str(path), True, [], None)
    for other in (None, own | {"output": "p.jsonl"}, own | {"shard": "1/2"}):
        with pytest.raises(InputError, match="--overwrite"):
            command_line.check_json(str(path), False, [], other)
    for content in ("", "[]", "[" * 100_000, "{}"):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match="--overwrite"):
            command_line.check_json(str(path), False, [], own)


def test_a_name_that_the_terminal_cannot_show_ends_nothing(tmp_path: Path) -> None:
    program = (
        "from absl import flags; from judgelm_jax.commands.command_line import run\n"
        "raise SystemExit(run(lambda: print('\\udc80 \\u2713 \\ud800'), flags.FlagValues(), 'x', []))"
    )
    for encoding in ("utf-8", "ascii", "latin-1"):
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"\\udc80")


def test_other_processes_of_an_interrupted_run_are_told_so():
    assert command_line.describe(KeyboardInterrupt()) == "interrupted; run the same command with --resume to go on"
