"""Every example of every README is run, in its order, in one folder; every link inside the project leads somewhere."""

import dataclasses
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import warm_processes
from processes import environment

from judgelm_jax.training_config import DataConfig

ROOT = Path(__file__).parent.parent
# The top one first: the others go on where it ends.
READMES = [ROOT / "README.md", *sorted(path for path in ROOT.glob("*/**/README.md") if ".venv" not in path.parts)]
README = READMES[0].read_text(encoding="utf-8")
COMMANDS = {path.stem for path in (ROOT / "judgelm_jax/commands").glob("*.py")} - {"__init__", "command_line"}
# Those of the most seconds whose outputs no other example reads, and that read those of none.
SLOW = (
    "configs/README.md:1",
    "configs/README.md:2",
    "judgelm_jax/evaluation/benchmarks/README.md:3",
    "judgelm_jax/laboratory/README.md:0",
    "judgelm_jax/planning/README.md:0",
)
EXAMPLES = [
    pytest.param(language, code, id=name, marks=pytest.mark.slow if name in SLOW else ())
    for path in READMES
    for number, (language, code) in enumerate(
        re.findall(r"^```(bash|python)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    )
    for name in [f"{path.relative_to(ROOT)}:{number}"]
]
# These set up an environment, which the one that runs this test has behind it.
SETUP = {
    "bash launch/test.sh": "",
    "bash launch/quickstart.sh": "judgelm-quickstart --steps=2 --questions=14",
    "pip install '.[cuda]'": "",
}
# These make long runs short.
SHORT = {
    "--config.training.learning_rate=1e-3\n": "--config.training.learning_rate=1e-3 --config.training.steps=2 "
    "--config.data.length=256 --config.evaluation.records=8\n",
    "--config.training.epochs=1\n": "--config.training.epochs=1 --config.training.steps=2\n",
    "judgelm-train --config=configs/reviews.py --data=$JUDGELM_SHARED/data/reviews/gpt4_pairs_train.jsonl": (
        "head -n 200 $JUDGELM_SHARED/data/reviews/gpt4_pairs_train.jsonl > few.jsonl\n"
        "judgelm-train --config=configs/reviews.py --data=few.jsonl"
    ),
    "--output=runs/reviews\n": "--output=runs/reviews --config.training.batch=2 --config.training.steps=2 "
    "--config.evaluation.records=4\n",
    "--input=runs/mine/chats.jsonl": "--input=runs/mine/chats.jsonl --context=1024",
    "--input=runs/mt_bench/records.jsonl": "--input=runs/mt_bench/records.jsonl --context=1024",  # few lengths to compile for
    "--input=runs/mine/mt-bench-first.jsonl": "--input=runs/mine/mt-bench-first.jsonl --context=1024",
    "--input=runs/pandalm/records.jsonl": "--input=runs/pandalm/records.jsonl --context=1024",
    "--output=runs/mine/mm-vet": "--output=runs/mine/mm-vet --limit=4",
    "--output=runs/reviews/judgments.jsonl": "--output=runs/reviews/judgments.jsonl --context=1024",
    "--suite=train --size=tiny": "--suite=train --size=tiny --length=512",
}
# Of a file of real records, that many are judged.
JUDGED = 6


def run(language, code, folder):
    own = environment(PATH=os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]))
    command = ["bash", "-euc", code] if language == "bash" else warm_processes.command(own, code)
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    (folder / "configs").symlink_to(ROOT / "configs")  # the examples are run in a clone
    (folder / "bin").mkdir()
    warm_processes.console_scripts(environment(), folder / "bin", COMMANDS)
    return folder


def test_there_are_examples():
    assert len(EXAMPLES) >= 15


@pytest.mark.parametrize(("language", "code"), EXAMPLES)
def test_example_runs(language, code, folder, request):
    for setup, instead in SETUP.items():
        if code.startswith(setup):
            code = instead
    if "$JUDGELM_SHARED" in code:
        request.getfixturevalue("shared")
        code = code.replace("judgelm-judge ", f"judgelm-judge --limit={JUDGED} ")
    for long, short in SHORT.items():
        code = code.replace(long, short)
    done = run(language, code, folder)
    assert done.returncode == 0, done.stderr
    if "runs/reviews" in code:
        assert "held out" in done.stdout
        assert f"missing {1213 - JUDGED}" in done.stdout
    if "runs/pandalm" in code:
        rows = [json.loads(line) for line in (folder / "runs/pandalm/judgments.jsonl").read_text().splitlines()]
        assert len(rows) == JUDGED
        assert {row["status"] for row in rows} <= {"ok", "truncated"}
        assert "422 first, 472 second, 105 ties" in done.stdout
        assert f"missing {999 - JUDGED}" in done.stdout


def test_the_examples_left_what_the_text_says(folder):
    judgments = [json.loads(line) for line in (folder / "runs/mine/judgments.jsonl").read_text().splitlines()]
    tables = (ROOT / "judgelm_jax/judging/README.md").read_text() + (ROOT / "configs/README.md").read_text()
    fields = set(re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", tables, re.MULTILINE))
    named = {name for cell in fields for name in re.findall(r"`(\w+)`", cell)}
    assert {"pred_text", "consistent", "tstamp"} <= named
    with_distribution = json.loads((folder / "runs/mine/distributions.jsonl").read_text().splitlines()[0])
    settings = {field.name for field in dataclasses.fields(DataConfig)}  # the table of techniques
    assert {"swap_augmentation", "reference_drop"} <= named & settings
    graded, ranked = (
        json.loads((folder / f"runs/mine/{name}.jsonl").read_text().splitlines()[0]) for name in ("graded", "ranked")
    )
    assert named - settings <= set(judgments[0]) | set(with_distribution) | set(graded) | set(ranked), named
    assert (len(graded["scores"]), graded["reference_used"]) == (1, True)
    assert sorted(number for group in ranked["ranking"] for number in group) == [1, 2, 3]
    assert [row["question_id"] for row in judgments] == [1, 2]
    joined = [json.loads(line) for line in (folder / "runs/mine/joined.jsonl").read_text().splitlines()]
    assert [row["question_id"] for row in joined] == [1, 2]
    assert not (folder / "runs/mine/joined.jsonl.partial").exists()
    assert json.loads((folder / "runs/mine/metrics.json").read_text())["total"] == 2


def _anchors(text):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(readme):
    text = readme.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        page = (readme.parent / path).resolve() if path else readme
        page = page / "README.md" if page.is_dir() else page
        assert page.is_file(), target
        assert not anchor or anchor in _anchors(page.read_text(encoding="utf-8")), target


def test_every_command_is_in_the_table_and_explains_itself():
    assert set(re.findall(r"^\| `judgelm-(\w+)` \|", README, re.MULTILINE)) == COMMANDS
    installed = importlib.metadata.distribution("judgelm-jax").entry_points.select(group="console_scripts")
    assert {script.name: script.value for script in installed} == {
        f"judgelm-{name}": f"judgelm_jax.starting:{name}" for name in COMMANDS
    }
    for name in COMMANDS:
        script = (ROOT / f"launch/{name}.py").read_text()
        assert script == f'from judgelm_jax.starting import start\n\nraise SystemExit(start("{name}"))\n'
        assert (Path(sys.executable).parent / f"judgelm-{name}").exists()
        done = subprocess.run([sys.executable, f"launch/{name}.py", "--help"], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"judgelm-{name}: ")
