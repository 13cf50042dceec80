"""One machine, checked and measured: its peak, each kernel against the definition, judging and a training step.

The weights are random. Imports neither grain nor ml_collections nor TensorBoard, so that a bare machine with JAX can run it.
What fails is a finding, and the others are still measured.
"""

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from judgelm_jax import laboratory
from judgelm_jax.bench import judge_suite, kernel_suite, machine, planned
from judgelm_jax.bench.checkpoints import model_config
from judgelm_jax.devices import memory
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.judging.batching import Prompt
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.engine import Engine
from judgelm_jax.judging.trees import Trees
from judgelm_jax.model import attention, config_json, parameters
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.parameters import Params
from judgelm_jax.model.placement import Placement
from judgelm_jax.prompts.prompts import END
from judgelm_jax.tokens.tokenization import load_tokenizer
from judgelm_jax.training.loss import Batch
from judgelm_jax.training.optimizer import make_optimizer, schedule
from judgelm_jax.training.step import Program, batch_sharding, init_state, make_step, state_shardings
from judgelm_jax.training.throughput import step_flops
from judgelm_jax.training_config import RecipeConfig
from judgelm_jax.verdicts import distributions
from judgelm_jax.verdicts.score_lines import SCORE_STRINGS, LineForm

# Tokens of a prompt: the 3rd to 97th percentile, in 20 steps, of the prompts of 1,213 judged pairs (Vicuna's reviews) with the
# LLaMA tokenizer.
PROMPT_LENGTHS = (393, 479, 502, 532, 552, 566, 587, 609, 631, 656, 684, 710, 754, 793, 829, 875, 934, 993, 1072, 1282)
MODES = ("scores", "explain", "distribution")


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured. `trained`: models, of which those are trained that the memory holds; `prompts`: of the modes
    scores, explain, distribution; `lengths`: of how many lengths they are; `slots`: of a device, that decode together;
    `shorter`: what prompt lengths are divided by; `matmul`: the width of a product; `copied`: values of a copy."""

    judge: str
    trained: tuple[str, ...]
    prompts: tuple[int, int, int]
    lengths: tuple[int, int, int]
    new_tokens: int
    slots: int
    shorter: int
    rows: int
    length: int
    attention: kernel_suite.Shapes
    matmul: int
    copied: int
    seconds: float


SIZES = {
    "full": Size(
        judge="7b",
        trained=("1b", "7b"),
        prompts=(256, 64, 64),
        lengths=(20, 5, 5),
        new_tokens=128,
        slots=32,
        shorter=1,
        rows=8,
        length=2048,
        attention=kernel_suite.Shapes(rows=8, tokens=2048, heads=32, kv_heads=8, width=128),
        matmul=8192,
        copied=2**28,
        seconds=0.2,
    ),
    "tiny": Size(
        judge="tiny",
        trained=("tiny",),
        prompts=(8, 4, 4),
        lengths=(20, 5, 5),
        new_tokens=16,
        slots=2,
        shorter=4,
        rows=2,
        length=128,
        attention=kernel_suite.Shapes(rows=2, tokens=128, heads=4, kv_heads=2, width=16),
        matmul=256,
        copied=2**20,
        seconds=0.01,
    ),
}


def measure(size: Size, mesh_text: str, dtype: str, rounds: int) -> dict[str, Any]:
    """Everything, in turn; what is known is printed at once.

    Returns `peak` (`tflops` and `gbytes_per_second` of one device), `kernels` (`kernel_suite.measure`), `judge` and `train`,
    whose shares are of the measured peak of all devices, with `planned_seconds`, what `judgelm-plan` says of the same programs
    (None for devices that it does not know); `ok`: nothing of ours failed, no kernel is wrong, and what was
    computed is finite.
    """
    mesh = make_mesh(MeshConfig.parse(mesh_text))
    flops, bandwidth = machine.matmul_flops(dtype, size.matmul), machine.memory_bandwidth(size.copied)
    print(f"peak of one device: {flops / 1e12:.1f} TFLOP/s in {dtype}, {bandwidth / 1e9:.0f} GB/s", flush=True)
    kernels = kernel_suite.measure(size.attention, dtype, size.seconds)
    print_kernels(kernels)
    config = model_config(size.judge)
    params = _random_params(config, mesh, dtype)
    judged = []
    for number, mode in enumerate(MODES):
        one = _found(mode, functools.partial(_judge, params, config, mesh, mode, number, size, dtype, rounds))
        if "failed" not in one:
            one["share_of_peak"] = one["flops"] / one["seconds"] / (flops * mesh.size)
            one["share_of_bandwidth"] = one["bytes"] / one["seconds"] / (bandwidth * mesh.size)
            print_judging(one)
        judged.append(one)
    peer = _found("PyTorch's generate", lambda: _peer(config, size, dtype) or {})
    if "prompts" in peer and "failed" not in judged[0]:
        rate, own = peer["prompts"] / peer["seconds"], judged[0]["prompts"] / judged[0]["seconds"]
        print(
            f"PyTorch's generate, one prompt at a time: {rate:.2f} prompts/s; ours, scores: {own:.2f} ({own / rate:.1f}×)",
            flush=True,
        )
    del params
    trained = []
    for name in size.trained:
        if not _holds_training(model_config(name), mesh):
            print(f"train {name}: needs more memory than there is", flush=True)
            continue
        one = _found(f"train {name}", functools.partial(_train, model_config(name), mesh, size, dtype, rounds))
        if "failed" not in one:
            one["share_of_peak"] = one["flops"] / one["seconds"] / (flops * mesh.size)
            print_training(name, one)
        trained.append({"model": name, **one})
    return {
        "peak": {"tflops": flops / 1e12, "gbytes_per_second": bandwidth / 1e9},
        "kernels": kernels,
        "judge": judged,
        **({"peer": peer} if peer else {}),
        "train": trained,
        "ok": all(row.get("ok", True) for row in (*kernels, *judged, *trained)),
    }


def _found(what: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is measured; `failed`, and why, where a compiler or the device fails."""
    try:
        return run()
    except Exception as error:
        said = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
        print(f"{what}: FAILED  {said}", flush=True)
        return {"failed": said, "ok": False}


def _holds_training(config: ModelConfig, mesh: Mesh) -> bool:
    """Whether the memory of the devices holds masters, moments and gradients, all float32, with a tenth to spare."""
    room = memory.room_beside({}, mesh, None)
    needed = (
        16 * sum(tensor.size for tensor in parameters.declared(config).values()) / (mesh.shape["fsdp"] * mesh.shape["tensor"])
    )
    return room is None or 1.1 * needed <= room


def _random_params(config: ModelConfig, mesh: Mesh, dtype: str) -> Params:
    placed = parameters.param_shardings(config, mesh)
    return jax.jit(lambda key: parameters.init_params(config, key, dtype), out_shardings=placed)(jax.random.key(0))


def _judge(
    params: Params, config: ModelConfig, mesh: Mesh, mode: str, number: int, size: Size, dtype: str, rounds: int
) -> dict[str, Any]:
    """The engine on random prompts, no two of which begin alike; the median of the rounds after one that compiles."""
    count = size.prompts[number]
    slots = size.slots * mesh.shape["data"] * mesh.shape["fsdp"]
    settings = JudgeConfig(
        mode=mode, dtype=dtype, max_new_tokens=size.new_tokens, batch_size=slots if mode == "explain" else None
    )
    with tempfile.TemporaryDirectory() as folder:
        laboratory.write_tokenizer(Path(folder))
        tokenizer = load_tokenizer(Path(folder))
    words = distributions.grid(settings.score_grid) if mode == "distribution" else SCORE_STRINGS
    form = LineForm(END, "", words, 2)
    engine = Engine(params, config, mesh, settings, Trees(tokenizer, mode))
    random = np.random.default_rng(0)
    some = PROMPT_LENGTHS[:: len(PROMPT_LENGTHS) // size.lengths[number]]
    lengths = [some[index % len(some)] // size.shorter for index in range(count)]
    prompts = [
        Prompt(index, random.integers(3, config.vocab_size, length).astype(np.int32), np.asarray([0, index], np.uint32), form)
        for index, length in enumerate(lengths)
    ]
    start = time.perf_counter()
    finite = sum(response.finish != "not finite" for response in engine.run(prompts))
    warm = time.perf_counter() - start
    before, times = dataclasses.replace(engine.counts), []
    for _ in range(rounds):
        start = time.perf_counter()
        list(engine.run(prompts))
        times.append(time.perf_counter() - start)
    tokens = sum(lengths)
    generated = (engine.counts.generated_tokens - before.generated_tokens) / rounds
    steps = (engine.counts.slot_steps - before.slot_steps) / rounds / slots
    weights = sum(tensor.size for tensor in parameters.declared(config).values()) * jnp.dtype(dtype).itemsize
    return {
        "mode": mode,
        "prompts": count,
        "ok": finite == count,
        "finite": finite,
        "prompt_tokens": tokens,
        "generated_tokens": generated,
        "seconds": float(np.median(times)),
        "planned_seconds": planned.judging_seconds(engine, prompts, steps),
        "compile_seconds": engine.counts.compile_seconds,
        "warm_up_seconds": warm,
        "programs_after_warm_up": engine.counts.programs - before.programs,
        "padding": engine.counts.padding,
        "flops": step_flops(config, tokens + generated, sum(n**2 for n in lengths), count + generated, False) / 3,
        "decode_steps": steps,
        "bytes": weights * steps,  # each step reads all weights once
    }


def _peer(config: ModelConfig, size: Size, dtype: str) -> dict[str, Any] | None:
    """The published loop, `generate` with one prompt at a time, on the same shape and prompt lengths; None without PyTorch."""
    try:
        import torch
        import transformers
    except ImportError:
        print("PyTorch is not installed: its generate is left out")
        return None
    device = "cpu" if jax.devices()[0].platform == "cpu" else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        print("PyTorch cannot use this accelerator: its generate is left out")
        return None
    shape = transformers.LlamaConfig(**config_json.to_hf(config, dtype))
    try:
        with torch.device(device):
            model = transformers.AutoModelForCausalLM.from_config(shape, dtype=getattr(torch, dtype)).eval()
    except torch.OutOfMemoryError:
        print("PyTorch finds no memory beside ours: set XLA_PYTHON_CLIENT_MEM_FRACTION=0.6 to measure both")
        return None
    random = np.random.default_rng(0)
    prompts = [random.integers(3, config.vocab_size, length // size.shorter) for length in PROMPT_LENGTHS[::3]]
    generate = judge_suite.published_loop(model, config.eos_ids)
    generate(prompts[:1], 5)
    start = time.perf_counter()
    generate(prompts, 5)
    return {"prompts": len(prompts), "new_tokens": 5, "seconds": time.perf_counter() - start}


def _train(config: ModelConfig, mesh: Mesh, size: Size, dtype: str, rounds: int) -> dict[str, Any]:
    """One optimizer step on rows full of random tokens, half of which are targets."""
    recipe = RecipeConfig(batch=size.rows, epochs=1, warmup=0.0)
    backend = attention.backend_for(mesh.devices.flat[0].platform, config.head_dim, dtype)
    program = Program(
        model=config,
        placement=Placement(mesh, backend, "full"),
        optimizer=make_optimizer(recipe, 100),
        schedule=schedule(recipe, 100),
        dtype=dtype,
        packed=False,
        accumulation=1,
        loss_chunk=512,
        lora=None,
    )
    params = _random_params(config, mesh, "float32")
    placed = state_shardings(params, parameters.param_shardings(config, mesh), program.optimizer, mesh)
    state = jax.jit(lambda x: init_state(x, program.optimizer), out_shardings=placed, donate_argnums=0)(params)
    rows = -(-size.rows // (mesh.shape["data"] * mesh.shape["fsdp"])) * mesh.shape["data"] * mesh.shape["fsdp"]
    random = np.random.default_rng(1)
    tokens = random.integers(3, config.vocab_size, (rows, size.length)).astype(np.int32)
    half = size.length // 2
    indices = np.broadcast_to(np.arange(half - 1, size.length - 1, dtype=np.int32), (rows, size.length - half))
    everywhere = np.broadcast_to(np.arange(size.length, dtype=np.int32), tokens.shape)
    arrays = Batch(tokens, everywhere, np.ones_like(tokens), indices, tokens[:, half:], np.ones(indices.shape, np.float32))  # type: ignore[arg-type]
    batch = Batch(*(jax.device_put(np.ascontiguousarray(x), batch_sharding(mesh)) for x in arrays))
    start = time.perf_counter()
    compiled = jax.jit(make_step(program), donate_argnums=0, out_shardings=(placed, None)).lower(state, None, batch).compile()
    compile_seconds = time.perf_counter() - start
    losses, times = [], []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        state, metrics = compiled(state, None, batch)
        losses.append(float(metrics["loss"]))
        times.append(time.perf_counter() - start)
    return {
        "tokens": tokens.size,
        "ok": bool(np.isfinite(losses).all()),
        "losses": losses,
        "seconds": float(np.median(times[1:])),
        "planned_seconds": planned.seconds(compiled, 1),
        "compile_seconds": compile_seconds,
        "flops": step_flops(config, tokens.size, rows * size.length**2, indices.size, False),
    }


def print_kernels(rows: list[dict[str, Any]]) -> None:
    """A table; what a backend does not do here is one line each."""
    print(f"\n{'kernel':<10}{'what':<18}{'error':>10}{'ms':>10}{'TFLOP/s':>10}{'GB/s':>8}")
    refused: dict[str, list[str]] = {}
    for row in rows:
        if "refused" in row:
            refused.setdefault(f"{row['backend']}: {row['refused']}", []).append(row["what"])
            continue
        if "failed" in row:
            print(f"{row['backend']:<10}{row['what']:<18}{'FAILED':>10}  {row['failed']}")
            continue
        flops = f"{row['tflops']:.1f}" if "tflops" in row else ""
        rate = f"{row['bytes_per_second'] / 1e9:.0f}" if "bytes_per_second" in row else ""
        wrong = "" if row["ok"] else "  WRONG"
        milliseconds = 1e3 * row["seconds"]
        print(f"{row['backend']:<10}{row['what']:<18}{row['error']:>10.1e}{milliseconds:>10.3f}{flops:>10}{rate:>8}{wrong}")
    for reason, passes in refused.items():
        some = "" if len(passes) == len(kernel_suite.PASSES) else f" ({'; '.join(passes)})"
        print(f"not here: {reason}{some}")


def print_judging(one: dict[str, Any]) -> None:
    """A line about one mode."""
    decoding = f", weights at {100 * one['share_of_bandwidth']:.0f} % of the bandwidth" if one["bytes"] else ""
    print(
        f"\n{one['mode']}: {one['prompts']} prompts, {one['prompt_tokens']} tokens in {one['seconds']:.2f} s{_planned(one)}: "
        f"{one['prompt_tokens'] / one['seconds']:.0f} prompt tokens/s, {one['generated_tokens'] / one['seconds']:.0f} "
        f"generated/s, {100 * one['share_of_peak']:.1f} % of peak{decoding}; padding {100 * one['padding']:.1f} %, compiled in "
        f"{one['compile_seconds']:.1f} s",
        flush=True,
    )


def print_training(name: str, one: dict[str, Any]) -> None:
    """A line about the step."""
    print(
        f"\ntrain {name}: {one['tokens']} tokens a step in {one['seconds']:.2f} s{_planned(one)}: "
        f"{one['tokens'] / one['seconds']:.0f} tokens/s, {100 * one['share_of_peak']:.1f} % of peak; "
        f"loss {one['losses'][0]:.3f} to {one['losses'][-1]:.3f}, compiled in {one['compile_seconds']:.1f} s",
        flush=True,
    )


def _planned(one: dict[str, Any]) -> str:
    return "" if one["planned_seconds"] is None else f" (planned: {one['planned_seconds']:.2f} s)"
