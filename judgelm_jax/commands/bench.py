"""measures side by side with peers, in one run, on the same weights, data, dtype and machine.

--suite=judge: our engine, the published loop (Hugging Face `generate`, one prompt at a time), `generate` in batches, and
CTranslate2 where it is installed.
--suite=train: our step, and a plain PyTorch loop (micro-batches padded to their longest, AdamW).
--suite=accelerator: a machine by itself: its peak, every attention kernel against the definition (a wrong one ends the run with
exit code 1), judging with a 7B model and a training step with 1B, random weights.

Without --model a checkpoint with random weights is made; without --input, records with a known teacher. The peers need
PyTorch; on an accelerator they run there if PyTorch can use it, else they are left out.

  judgelm-bench --suite=judge --size=110m --records=16 --json=bench.json
  judgelm-bench --suite=train --size=15m --rows=8 --steps=2
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from judgelm_jax.commands.command_line import check_json, run, write_json
from judgelm_jax.errors import InputError
from judgelm_jax.records.json_lines import read_jsonl
from judgelm_jax.records.records import check_records

if TYPE_CHECKING:
    from judgelm_jax.bench.judge_suite import Generate

FLAGS = flags.FlagValues()

SUITE = flags.DEFINE_enum("suite", "judge", ["judge", "train", "accelerator"], "what is measured.", flag_values=FLAGS)
MODEL = flags.DEFINE_string("model", None, "a Hugging Face folder; random weights when not given", flag_values=FLAGS)
SIZE = flags.DEFINE_enum(
    "size",
    None,
    ["tiny", "15m", "110m", "7b"],
    "of the random weights; when not given 110m (train: 15m) on a CPU and 7b elsewhere.",
    flag_values=FLAGS,
)
TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "a folder with tokenizer files for the random weights; a small one when not given", flag_values=FLAGS
)
INPUT = flags.DEFINE_string("input", None, "judge records, or training rows; made ones when not given", flag_values=FLAGS)
RECORDS = flags.DEFINE_integer("records", 16, "judge: how many pairs are judged", lower_bound=1, flag_values=FLAGS)
ROWS = flags.DEFINE_integer("rows", 8, "train: rows of a step, of --length tokens", lower_bound=1, flag_values=FLAGS)
LENGTH = flags.DEFINE_integer("length", 2048, "train: tokens of a row", lower_bound=64, flag_values=FLAGS)
STEPS = flags.DEFINE_integer("steps", 2, "train: steps of a round", lower_bound=1, flag_values=FLAGS)
ROUNDS = flags.DEFINE_integer("rounds", 3, "how often each side runs", lower_bound=1, flag_values=FLAGS)
MODES = flags.DEFINE_list("modes", ["scores", "explain"], "of scores, explain, distribution", flag_values=FLAGS)
NEW_TOKENS = flags.DEFINE_integer("new_tokens", 128, "of an explanation", lower_bound=1, flag_values=FLAGS)
PEER_BATCH = flags.DEFINE_integer("peer_batch", 8, "prompts in a batch of the batched peer", lower_bound=1, flag_values=FLAGS)
DTYPE = flags.DEFINE_enum(
    "dtype", None, ["float32", "bfloat16"], "float32 on a CPU and bfloat16 elsewhere when not given.", flag_values=FLAGS
)
MESH = flags.DEFINE_string("mesh", "data:-1", "as in judgelm-judge", flag_values=FLAGS)
PEAK_TFLOPS = flags.DEFINE_float(
    "peak_tflops", None, "of all devices together, for the share of peak: 989 for an H100 in bfloat16", flag_values=FLAGS
)
JSON = flags.DEFINE_string("json", None, "also write the results as JSON to this file", flag_values=FLAGS)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace the file of --json if it exists", flag_values=FLAGS)


def main() -> None:
    modes = MODES.value
    if not modes or not set(modes) <= {"scores", "explain", "distribution"}:
        raise InputError(f"--modes={','.join(modes)}: must be of scores, explain, distribution")
    check_json(JSON.value, OVERWRITE.value, [Path(INPUT.value)] if INPUT.value else [])
    if INPUT.value is not None and SUITE.value == "judge":
        check_records(Path(INPUT.value))
    if TOKENIZER.value is not None:
        from judgelm_jax.tokens.tokenization import load_tokenizer

        load_tokenizer(Path(TOKENIZER.value))
    with tempfile.TemporaryDirectory() as scratch:
        if SUITE.value == "accelerator":
            results = _measure_accelerator()
        elif SUITE.value == "train":
            results = _measure_training(Path(scratch))
            _print_training(results)
        else:
            results = _measure(Path(scratch), modes)
            for result in results["modes"]:
                _print(result)
    write_json(JSON.value, results)
    if not results.get("ok", True):
        raise SystemExit(1)


def entry() -> int:
    """The console command."""
    return run(main, FLAGS, "bench")


def _measure(scratch: Path, modes: list[str]) -> dict[str, Any]:
    import itertools

    import jax

    from judgelm_jax import laboratory
    from judgelm_jax.bench import judge_suite
    from judgelm_jax.devices.runtime import enable_compilation_cache, require_devices
    from judgelm_jax.judging.config import JudgeConfig
    from judgelm_jax.judging.judge import Judge

    require_devices()
    enable_compilation_cache()
    platform = jax.devices()[0].platform
    dtype = DTYPE.value or ("float32" if platform == "cpu" else "bfloat16")
    folder = Path(MODEL.value) if MODEL.value else _random_checkpoint(scratch / "model", _size("110m", platform), dtype)
    if INPUT.value is None:
        records = [pair.record for pair in laboratory.make_pairs(RECORDS.value, seed=0)]
    else:
        records = [record for _, record in itertools.islice(read_jsonl(Path(INPUT.value)), RECORDS.value)]
    model = _peer_model(folder, platform, dtype)
    fast = _ctranslate2(folder, scratch / "ctranslate2", platform, dtype)
    results: dict[str, Any] = {
        **_setting(dtype),
        "model": MODEL.value or f"random {_size('110m', platform)}",
        "modes": [],
    }
    for mode in modes:
        print(f"measuring {mode}: {len(records)} pairs in both orders, {ROUNDS.value} rounds of each side", flush=True)
        settings = JudgeConfig(mode=mode, orders="both", dtype=dtype, max_new_tokens=NEW_TOKENS.value)
        judge = Judge.load(str(folder), MESH.value, settings)
        config = judge.engine.config
        peers: dict[str, judge_suite.Generate] = {}
        if model is not None and mode != "distribution":
            peers = {
                "published loop": judge_suite.published_loop(model, config.eos_ids),
                f"generate, batches of {PEER_BATCH.value}": judge_suite.batched_generate(
                    model, config.eos_ids, PEER_BATCH.value
                ),
            }
        if fast is not None and mode != "distribution":
            peers |= {f"CTranslate2, batches of {PEER_BATCH.value}": fast}
        suite = judge_suite.Suite(mode, records, ROUNDS.value)
        layers = judge.engine.params["layers"]
        parameters = sum(leaf.size for leaf in jax.tree.leaves(layers))
        results["modes"].append(judge_suite.measure(judge, peers, suite, parameters, PEAK_TFLOPS.value))
        del judge
    return results


def _measure_accelerator() -> dict[str, Any]:
    import jax

    from judgelm_jax.bench import accelerator_suite
    from judgelm_jax.devices.runtime import enable_compilation_cache, require_devices

    require_devices()
    enable_compilation_cache()
    platform = jax.devices()[0].platform
    dtype = DTYPE.value or ("float32" if platform == "cpu" else "bfloat16")
    size = "tiny" if _size("tiny", platform) == "tiny" else "full"
    print(f"{len(jax.devices())} × {jax.devices()[0].device_kind}, JAX {jax.__version__}, sizes: {size}", flush=True)
    measured = accelerator_suite.measure(accelerator_suite.SIZES[size], MESH.value, dtype, ROUNDS.value)
    return {**_setting(dtype), "size": size, **measured}


def _measure_training(scratch: Path) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    from judgelm_jax import laboratory
    from judgelm_jax.bench import train_suite
    from judgelm_jax.devices.runtime import enable_compilation_cache, require_devices
    from judgelm_jax.model import parameters
    from judgelm_jax.records.json_lines import dump_line
    from judgelm_jax.training import setup

    require_devices()
    enable_compilation_cache()
    platform = jax.devices()[0].platform
    dtype = DTYPE.value or ("float32" if platform == "cpu" else "bfloat16")
    size = _size("15m", platform)
    folder = Path(MODEL.value) if MODEL.value else _random_checkpoint(scratch / "model", size, dtype)
    data = Path(INPUT.value) if INPUT.value else scratch / "train.jsonl"
    if INPUT.value is None:
        rows = laboratory.training_records(64 * ROWS.value * STEPS.value, seed=0)
        data.write_text("".join(dump_line(row) + "\n" for row in rows), encoding="utf-8")
    config = train_suite.config_for(folder, ROWS.value, LENGTH.value, dtype, MESH.value, PEAK_TFLOPS.value)
    sources = setup.Sources(data, None, str(folder), None)
    planned = setup.prepare(config, sources, *setup.check_sources(config, sources))
    if planned.plan.steps < STEPS.value:
        raise InputError(f"--steps={STEPS.value}: {data} fills {planned.plan.steps} steps of {ROWS.value} rows; choose fewer")
    steps = train_suite.steps_of(planned, STEPS.value)
    model = _peer_model(folder, platform, dtype)
    peer = None
    if model is not None:
        rates = [float(planned.program.schedule(step)) for step in range((ROUNDS.value + 1) * STEPS.value)]
        peer = train_suite.torch_peer(model.train(), PEER_BATCH.value, rates, config.training)
    assert planned.checkpoint is not None
    trained = planned.checkpoint.load(parameters.param_shardings(planned.model, planned.mesh), jnp.float32)
    print(f"measuring train: {STEPS.value} steps of {ROWS.value} rows, {ROUNDS.value} rounds of each side", flush=True)
    return {
        **_setting(dtype),
        "model": MODEL.value or f"random {size}",
        **train_suite.measure(planned, trained, peer, steps, ROUNDS.value),
    }


def _size(on_a_cpu: str, platform: str) -> str:
    return SIZE.value or (on_a_cpu if platform == "cpu" else "7b")


def _setting(dtype: str) -> dict[str, Any]:
    import jax

    return {
        "device": f"{len(jax.devices())} × {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "dtype": dtype,
    }


def _random_checkpoint(folder: Path, size: str, dtype: str) -> Path:
    import shutil

    import jax.numpy as jnp

    from judgelm_jax import laboratory
    from judgelm_jax.bench.checkpoints import model_config, write_random_checkpoint
    from judgelm_jax.tokens.tokenization import TOKENIZER_FILES

    write_random_checkpoint(folder, model_config(size), jnp.dtype(dtype), seed=0)
    if TOKENIZER.value is None:
        laboratory.write_tokenizer(folder)
    else:
        for name in TOKENIZER_FILES:
            if (Path(TOKENIZER.value) / name).is_file():
                shutil.copyfile(Path(TOKENIZER.value) / name, folder / name)
    return folder


def _peer_model(folder: Path, platform: str, dtype: str) -> Any:
    try:
        import torch
        import transformers
    except ImportError:
        print("PyTorch is not installed: the peers are left out (pip install 'judgelm-jax[torch]')")
        return None
    device = "cpu" if platform == "cpu" else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        print("PyTorch cannot use this accelerator: the peers are left out")
        return None
    transformers.logging.disable_progress_bar()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    return loaded.to(device).eval()


def _ctranslate2(folder: Path, scratch: Path, platform: str, dtype: str) -> "Generate | None":
    from judgelm_jax.bench.ctranslate2_peer import ctranslate2_generate

    try:
        return ctranslate2_generate(folder, scratch, "cpu" if platform == "cpu" else "cuda", dtype, PEER_BATCH.value)
    except ImportError:
        return None
    except (RuntimeError, ValueError) as error:  # no such device or dtype, or a model that it does not know
        print(f"CTranslate2 is left out ({' '.join(str(error).split())[:160]})")
        return None


def _print_training(result: dict[str, Any]) -> None:
    names = {"ours": "ours", "peer": f"PyTorch, micro-batches of {PEER_BATCH.value}"}
    print(
        f"\ntrain: {result['model']}, {result['dtype']}, {result['steps']} steps, {result['examples']} examples, "
        f"{result['tokens']} tokens"
    )
    print(f"{'':<32}{'tokens/s':>10}{'ours is faster by':>20}")
    for name, rate in result["tokens_per_second"].items():
        ratio = f"{result['ratio']:.2f}×" if name == "peer" else ""
        print(f"{names[name]:<32}{rate:>10.0f}{ratio:>20}")
    share = "" if result["utilization"] is None else f" ({100 * result['utilization']:.1f} % of peak)"
    difference = f", losses differ by at most {result['loss_difference']:.1e}" if "loss_difference" in result else ""
    print(
        f"model TFLOP/s {result['tflops']:.3f}{share}, padding {100 * result['padding']:.1f} %, compiled in "
        f"{result['compile_seconds']:.1f} s{difference}"
    )


def _print(result: dict[str, Any]) -> None:
    busy = "" if result["slots_busy"] is None else f", slots {100 * result['slots_busy']:.0f} % busy"
    peak = "" if result["share_of_peak"] is None else f", {100 * result['share_of_peak']:.1f} % of peak"
    length = result["prompt_tokens"] / result["prompts"]
    print(
        f"\n{result['mode']}: {result['pairs']} pairs in both orders, {length:.0f} tokens a prompt, {result['new_tokens']} new"
    )
    print(f"{'':<28}{'pairs/s':>9}{'ours is faster by':>20}")
    for name, rate in result["pairs_per_second"].items():
        ratio = f"{result['ratio'][name]:.2f}×" if name in result["ratio"] else ""
        same = f"   same text {result['same_text'][name]}" if name in result.get("same_text", {}) else ""
        print(f"{name:<28}{rate:>9.3f}{ratio:>20}{same}")
    print(
        f"prompt tokens/s {result['prompt_tokens_per_second']:.0f}{peak}, {100 * result['shared']:.1f} % computed with another "
        f"prompt's, padding {100 * result['padding']:.1f} %{busy}, host {100 * result['host_share']:.1f} %, "
        f"compiled {result['programs']} programs in {result['compile_seconds']:.1f} s and "
        f"{result['programs_after_warm_up']} after the warm-up"
    )
