"""The bench runs all sides on the same prompts, and says whether they wrote the same."""

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from judgelm_jax import laboratory
from judgelm_jax.bench import accelerator_suite, judge_suite, kernel_suite, planned
from judgelm_jax.commands import bench
from judgelm_jax.commands.command_line import run
from judgelm_jax.devices import hardware
from judgelm_jax.judging.batching import Prompt
from judgelm_jax.judging.responses import Counts, Response
from judgelm_jax.model.attention import dispatch, products
from judgelm_jax.planning.topology import parse
from judgelm_jax.records.json_lines import dump_line


@pytest.mark.slow
def test_all_sides_are_measured_in_one_run(tmp_path, capfd):
    arguments = [
        "--size=tiny",
        "--records=3",
        "--rounds=2",
        "--new_tokens=12",
        "--mesh=data:-1",
        f"--json={tmp_path / 'b.json'}",
    ]
    assert run(bench.main, bench.FLAGS, "bench", [*arguments, "--modes=scores,explain,distribution"]) == 0
    results = json.loads((tmp_path / "b.json").read_text())
    scores, explain, distribution = results["modes"]
    sides = {"ours", "published loop", "generate, batches of 8", "CTranslate2, batches of 8"}
    for result in (scores, explain):
        assert set(result["pairs_per_second"]) == sides
        assert all(len(times) == 2 and min(times) > 0 for times in result["seconds"].values())
        for name, ratio in result["ratio"].items():
            by_hand = sorted(a / b for a, b in zip(result["seconds"][name], result["seconds"]["ours"], strict=True))
            assert ratio == pytest.approx(sum(by_hand) / 2)
        assert result["programs_after_warm_up"] == 0
    assert explain["same_text"] == dict.fromkeys(sides - {"ours"}, "6 of 6")
    assert set(distribution["pairs_per_second"]) == {"ours"}
    assert "ours is faster by" in capfd.readouterr().out


def test_a_wrong_mode_is_refused(capfd):
    assert run(bench.main, bench.FLAGS, "bench", ["--modes=score"]) == 2
    assert "--modes=score: must be of" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.optimized
def test_training_beside_pytorch_on_the_same_examples(tmp_path, capsys):
    out = tmp_path / "bench.json"
    arguments = ["--suite=train", "--size=tiny", "--rows=8", "--length=512", "--steps=1", "--rounds=2", f"--json={out}"]
    assert run(bench.main, bench.FLAGS, "bench", arguments) == 0
    result = json.loads(out.read_text())
    assert set(result["tokens_per_second"]) == {"ours", "peer"}
    by_hand = [theirs / own for theirs, own in zip(result["seconds"]["peer"], result["seconds"]["ours"], strict=True)]
    assert result["ratio"] == pytest.approx(sum(by_hand) / 2)
    assert result["loss_difference"] < 1e-4  # after two updates of AdamW
    assert result["losses"]["ours"][0] > result["losses"]["ours"][-1]
    assert 0 < result["padding"] < 0.3
    assert "ours is faster by" in capsys.readouterr().out


def test_more_steps_than_the_data_have_are_refused(tmp_path, capsys):
    (tmp_path / "train.jsonl").write_text("".join(dump_line(row) + "\n" for row in laboratory.training_records(8, seed=0)))
    arguments = ["--suite=train", "--size=tiny", "--rows=8", "--steps=9", f"--input={tmp_path / 'train.jsonl'}"]
    assert run(bench.main, bench.FLAGS, "bench", arguments) == 2
    assert "fills 1 steps of 8 rows; choose fewer" in capsys.readouterr().err


def test_the_host_has_the_time_that_the_engine_does_not_take(monkeypatch):
    prompt = Prompt(0, np.arange(3, dtype=np.int32), np.zeros(2, np.uint32))
    clock = [0.0]

    def passes(seconds):
        clock[0] += seconds

    def run(rows):
        passes(0.2)
        for row in rows:
            yield Response(row.index, [5], "stop")
        passes(0.1)

    def prepare(window, references, orders):
        passes(0.15)
        return SimpleNamespace(prompts=[prompt])

    def judgments(prepared, answers):
        for answer in answers:
            passes(0.05)
            yield answer.index, {}

    monkeypatch.setattr(judge_suite, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    engine = SimpleNamespace(counts=Counts(prompt_tokens=3), run=run)
    judge = SimpleNamespace(engine=engine, prepare=prepare, judgments=judgments)
    result = judge_suite.measure(judge, {}, judge_suite.Suite("scores", [{}], 3), 1, None)
    assert result["host_share"] == pytest.approx(0.2 / 0.5)
    assert result["pairs_per_second"]["ours"] == pytest.approx(1 / 0.5)


@pytest.mark.slow
@pytest.mark.optimized
def test_a_machine_is_measured_and_a_wrong_kernel_ends_the_run(tmp_path, capsys, monkeypatch):
    """`xla` off by a factor: its forward passes, gradients and decoding are wrong, all others right."""
    right = products.library
    monkeypatch.setattr(dispatch, "library", lambda *arguments: 1.01 * right(*arguments))
    device = parse("cpu:1").hardware
    monkeypatch.setattr(hardware, "of_kind", lambda kind: device)
    out = tmp_path / "machine.json"
    with pytest.raises(SystemExit) as ended:
        run(bench.main, bench.FLAGS, "bench", ["--suite=accelerator", "--size=tiny", "--rounds=1", f"--json={out}"])
    assert ended.value.code == 1
    result = json.loads(out.read_text())
    wrong = {row["backend"] for row in result["kernels"] if not row.get("ok", True)}
    assert wrong == {"xla"}
    assert sum(row["ok"] for row in result["kernels"] if row["backend"] in ("reference", "blocked")) == 10
    assert {row["backend"] for row in result["kernels"] if "refused" in row} == {"cudnn", "pallas", "splash"}
    assert [one["mode"] for one in result["judge"]] == ["scores", "explain", "distribution"]
    assert all(one["programs_after_warm_up"] == 0 and one["finite"] == one["prompts"] for one in result["judge"])
    for one in (*result["judge"], *result["train"]):  # no plan is below what the mathematics needs at the peak
        least = one["flops"] / device.flops / jax.device_count()
        assert least < one["planned_seconds"] < 100 * least
    (trained,) = result["train"]
    assert trained["model"] == "tiny"
    assert trained["losses"][1] < trained["losses"][0]
    printed = capsys.readouterr().out
    assert printed.count("WRONG") == 5
    assert "not here: splash" in printed
    assert printed.count("planned: ") == 4


def test_a_bare_machine_can_measure_itself():
    """What is missing there is not imported: all loads without grain, ml_collections and TensorBoard."""
    absent = "import sys; sys.modules.update(dict.fromkeys(['grain', 'ml_collections', 'tensorboardX']))"
    code = f"{absent}; import judgelm_jax.commands.bench, judgelm_jax.bench.accelerator_suite"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_kernel_that_does_not_compile_is_a_failure_and_one_that_refuses_is_not(monkeypatch):
    compiled = []

    def backend(name):
        if name == "blocked":
            raise ValueError("of one query only")
        compiled.append(name)
        return untraceable if name == "pallas" else lambda x: 2 * x

    def untraceable(x):
        raise ImportError("no such library")

    def fastest(call, seconds):
        if compiled[-1] == "xla":
            raise ValueError("no such instruction")
        return 1.0

    monkeypatch.setattr(kernel_suite, "fastest", fastest)
    monkeypatch.setattr(kernel_suite.attention, "refuse", lambda *arguments: None)
    asked = kernel_suite.Pass(lambda *_: (jax.numpy.ones(3),), lambda name, shapes: backend(name))
    monkeypatch.setattr(kernel_suite, "PASSES", {"double": asked})
    rows = {row["backend"]: row for row in kernel_suite.measure(kernel_suite.Shapes(1, 8, 1, 1, 8), "float32", 0.01)}
    assert rows["blocked"]["refused"] == "of one query only"
    assert "ok" not in rows["blocked"]
    assert not rows["xla"]["ok"]
    assert rows["xla"]["failed"] == "ValueError: no such instruction"
    assert rows["pallas"]["failed"] == "ImportError: no such library"
    assert rows["reference"]["ok"]


def test_what_fails_is_said_and_the_others_are_measured(monkeypatch, capsys):
    measured = {"ok": True, "flops": 1.0, "bytes": 0.0, "seconds": 1.0, "planned_seconds": None, "prompts": 1, "losses": [2, 1]}
    measured |= dict.fromkeys(("prompt_tokens", "generated_tokens", "padding", "compile_seconds", "tokens"), 1)

    def judge(params, config, mesh, mode, *arguments):
        if mode == "explain":
            raise jax.errors.JaxRuntimeError("INTERNAL: no such kernel")
        return measured | {"mode": mode}

    def broken(*arguments):
        raise ImportError("of another CUDA")

    for name, stub in (("_judge", judge), ("_peer", broken), ("_train", lambda *arguments: dict(measured))):
        monkeypatch.setattr(accelerator_suite, name, stub)
    monkeypatch.setattr(accelerator_suite.kernel_suite, "measure", lambda *arguments: [])
    for name in ("matmul_flops", "memory_bandwidth"):
        monkeypatch.setattr(accelerator_suite.machine, name, lambda *arguments: 1.0)
    result = accelerator_suite.measure(accelerator_suite.SIZES["tiny"], "data:-1", "float32", 1)
    assert not result["ok"]
    assert [one.get("failed") is None for one in result["judge"]] == [True, False, True]
    assert result["train"][0]["ok"]
    printed = capsys.readouterr().out
    assert "explain: FAILED  JaxRuntimeError: INTERNAL: no such kernel" in printed
    assert "PyTorch's generate: FAILED  ImportError: of another CUDA" in printed


def test_the_plan_of_a_run_is_that_of_the_size_that_fitted(monkeypatch):
    """A product of 256 and a made-up device that is limited by FLOPs alone: 2 x 256^3 of them, twice."""
    device = dataclasses.replace(parse("cpu:1").hardware, bandwidth=1e30)
    monkeypatch.setattr(hardware, "of_kind", lambda kind: device)
    x = jax.ShapeDtypeStruct((256, 256), "float32")
    product = jax.jit(lambda a, b: a @ b).lower(x, x).compile()
    large, small = SimpleNamespace(shape=(1, 9, 9, 9)), SimpleNamespace(shape=(1, 2, 2, 2))
    programs = SimpleNamespace(executable=lambda *key: {("score", "form", 1, 2, 2, 2): product}.get(key))
    engine = SimpleNamespace(
        settings=SimpleNamespace(mode="scores"),
        programs=programs,
        score_sizes=lambda prompts: iter([[("form", None, [large])], [("form", None, [small, small])]]),
    )
    assert planned.judging_seconds(engine, [], 0) == pytest.approx(2 * 2 * 256**3 / device.flops)
