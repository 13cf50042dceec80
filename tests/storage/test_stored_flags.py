"""Commands whose flags name objects of a store: the same results, the user's names in what they say, and clear refusals."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from launcher_files import environment, write_records, write_training
from object_store import ObjectStore

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.commands import command_line, convert, evaluate, judge, prepare, train
from judgelm_jax.storage.stored_flags import fetched

LABELS = [{"question_id": i, "winner": (1, 2, 0)[i % 3]} for i in range(9)]
JUDGMENTS = [{"question_id": i, "answer1_body": "a", "answer2_body": "b", "pred_text": f"{5 + i % 2} 5\n"} for i in range(9)]


def run(module, *arguments: str) -> int:
    name = module.__name__.rpartition(".")[2]
    return command_line.run(module.main, module.FLAGS, name, arguments)


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_evaluate_gives_the_same_from_a_store(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "labels.jsonl").write_bytes(lines(LABELS))
    (tmp_path / "judgments.jsonl").write_bytes(lines(JUDGMENTS))
    monkeypatch.chdir(tmp_path)
    local = ["--labels=labels.jsonl", "--predictions=judgments.jsonl", "--json=summary.json"]
    assert run(evaluate, *local) == 0
    expected, printed = json.loads(Path("summary.json").read_text()), capsys.readouterr().out
    urls = [
        f"--labels={object_store.put('in/labels.jsonl', lines(LABELS))}",
        f"--predictions={object_store.put('in/judgments.jsonl', lines(JUDGMENTS))}",
        f"--json={object_store.url}/out/summary.json",
    ]
    object_store.faults.every = 4
    assert run(evaluate, *urls) == 0
    object_store.faults.every = None
    assert json.loads(object_store.content("out/summary.json")) == expected
    assert capsys.readouterr().out.replace(f"{object_store.url}/in/", "") == printed
    assert run(evaluate, *urls) == 2
    assert capsys.readouterr().err.startswith(f"judgelm-evaluate: {object_store.url}/out/summary.json: exists already")
    assert run(evaluate, *urls, "--overwrite") == 0


def test_what_is_wrong_is_named_by_its_url(object_store: ObjectStore, capsys: pytest.CaptureFixture) -> None:
    url = object_store.put("labels.jsonl", lines(LABELS[:2]) + b"{nothing\n")
    predictions = object_store.put("judgments.jsonl", lines(JUDGMENTS))
    assert run(evaluate, f"--labels={url}", f"--predictions={predictions}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"judgelm-evaluate: {url}:3: not valid JSON")
    assert run(evaluate, f"--labels={url}x", f"--predictions={predictions}") == 2
    assert capsys.readouterr().err == f"judgelm-evaluate: {url}x: there is nothing; check the name\n"


def test_an_object_is_fetched_again_only_when_it_changes(object_store: ObjectStore) -> None:
    url = object_store.put("m/a.txt", b"one")
    object_store.put("m/b/c.txt", b"two")
    folder = fetched(f"{object_store.url}/m")
    assert sorted(path.name for path in folder.rglob("*.txt")) == ["a.txt", "c.txt"]
    object_store.faults.requests.clear()
    assert fetched(f"{object_store.url}/m") == folder
    assert not [request for request in object_store.faults.requests if request.endswith(".txt")]
    object_store.put("m/a.txt", b"three")
    again = fetched(f"{object_store.url}/m")
    assert (again / "a.txt").read_bytes() == b"three"
    assert not folder.exists()
    assert fetched(url).read_bytes() == b"three"


TO_A_PATH = "writes it to a path only"
TRAIN = ["--config=configs/tiny.py", "--data=d"]
JUDGE = ["--model=m", "--input=i"]
TWO = ["--coordinator=10.0.0.1:1234", "--processes=2", "--process=1"]
REFUSED = [
    (train, [*TRAIN, "--output=s3://judge/run", "--distributed"], "s3://judge/run: one process writes it; leave --distributed"),
    (evaluate, ["--predictions=p", "--report=s3://judge/r"], f"--report=s3://judge/r: judgelm-evaluate {TO_A_PATH}"),
    (judge, [*JUDGE, "--output=https://a/b"], "--output=https://a/b: nothing can be written to https://"),
    (judge, ["--model=https://a/b", "--input=i", "--output=o"], "--model=https://a/b: https:// is read for files of JSON"),
    (judge, [*JUDGE, "--output=s3://judge/o", "--shard=1/2"], "s3://judge/o: one process writes it; leave --shard out"),
    (judge, [*JUDGE, "--output=s3://judge/o", "--distributed"], "s3://judge/o: one process writes it; leave --distributed out"),
    (
        judge,
        [*JUDGE, "--output=o", "--json=s3://judge/o", *TWO],
        "s3://judge/o: one process writes it; leave --coordinator out",
    ),
    (judge, ["--model=m", "--input=s3://judge", "--output=o"], "s3://judge"),
    (evaluate, ["--predictions=nowhere://a/b.jsonl"], "nowhere://"),
]


@pytest.mark.parametrize(("module", "arguments", "message"), REFUSED)
def test_what_does_not_go_is_refused_by_name(
    object_store: ObjectStore, capsys: pytest.CaptureFixture, module, arguments: list[str], message: str
) -> None:
    assert run(module, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_answers_are_prepared_and_checkpoints_converted_in_a_store(
    object_store: ObjectStore, laboratory_checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("alpha", "beta"):
        row = {"question_id": 1, "question_body": "q", "text": f"of {name}", "model": name}
        object_store.put(f"{name}.jsonl", lines([row]))
    answers = [f"--answers={object_store.url}/{name}.jsonl" for name in ("alpha", "beta")]
    assert run(prepare, *answers, f"--output={object_store.url}/records.jsonl") == 0
    assert json.loads(object_store.content("records.jsonl"))["answer2_body"] == "of beta"
    for file in laboratory_checkpoint.iterdir():
        object_store.put(f"hf/{file.name}", file.read_bytes())
    there = [f"--source={object_store.url}/hf", f"--target={object_store.url}/judge"]
    assert run(convert, *there, "--to=orbax") == 0
    opened = open_checkpoint(str(fetched(f"{object_store.url}/judge")))
    assert opened.weights.tensors == open_checkpoint(str(laboratory_checkpoint)).weights.tensors
    assert run(convert, *there, "--to=orbax") == 2
    assert f"{object_store.url}/judge: exists already" in capsys.readouterr().err


@pytest.mark.slow
def test_train_convert_judge_and_evaluate_with_a_store(object_store: ObjectStore, tmp_path: Path) -> None:
    """Everything but the folder of the training lies in the store, whose every ninth answer is a fault."""
    object_store.faults.every = 9
    variables = environment(**object_store.environment, XDG_CACHE_HOME=str(tmp_path / "cache"))

    def call(*arguments: str) -> str:
        done = subprocess.run(arguments, env=variables, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    config, _, _ = write_training(tmp_path, rows=48)
    for name in ("train.jsonl", "tokenizer.model", "tokenizer_config.json"):
        if (tmp_path / name).exists():
            object_store.put(f"in/{name}" if name == "train.jsonl" else f"tokenizer/{name}", (tmp_path / name).read_bytes())
    url, local = object_store.url, tmp_path / "training"
    call("judgelm-train", config, f"--data={url}/in/train.jsonl", f"--tokenizer={url}/tokenizer", f"--output={local}")
    call("judgelm-convert", f"--source={local / 'model'}", f"--target={url}/judge", "--to=hf")
    object_store.put("in/records.jsonl", write_records(tmp_path, 12).read_bytes())
    flags = [f"--model={url}/judge", f"--input={url}/in/records.jsonl", f"--output={url}/out/j.jsonl", "--resume"]
    flags += ["--mode=explain", "--batch_size=1", "--max_new_tokens=100", f"--json={tmp_path / 'summary.json'}"]
    killed = subprocess.Popen(["judgelm-judge", *flags], env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 200
    while killed.poll() is None and not any("j.jsonl.partial/judgments-" in name for name in object_store.names()):
        assert time.monotonic() < end
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    shutil.rmtree(tmp_path / "cache")  # another machine
    print(call("judgelm-judge", *flags))
    assert json.loads((tmp_path / "summary.json").read_text())["output"] == f"{url}/out/j.jsonl"
    assert "is complete, nothing to do" in call("judgelm-judge", *flags)  # its own summary may be replaced
    rows = [json.loads(line) for line in object_store.content("out/j.jsonl").splitlines()]
    assert [row["question_id"] for row in rows] == [
        json.loads(line)["question_id"] for line in (tmp_path / "records.jsonl").read_text().splitlines()
    ]
    labels = lines([{"question_id": row["question_id"], "winner": 1} for row in rows])
    told = call("judgelm-evaluate", f"--labels={object_store.put('in/l.jsonl', labels)}", f"--predictions={url}/out/j.jsonl")
    assert "agreement" in told
    assert not [name for name in object_store.names() if ".partial" in name]
