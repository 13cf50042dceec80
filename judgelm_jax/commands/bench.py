"""measures judging side by side with its peers, in one run: our engine, the published loop (Hugging Face `generate`, one
prompt at a time) and `generate` in batches, on the same weights, prompts, dtype and machine.

Without --model a checkpoint with random weights is made; without --input, records with a known teacher. The peers need
PyTorch; on an accelerator they run there if PyTorch can use it, else they are left out.

  judgelm-bench --suite=judge --size=110m --records=16 --json=bench.json
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from absl import flags

from judgelm_jax.commands.command_line import run
from judgelm_jax.errors import InputError
from judgelm_jax.records import check_records, read_jsonl, write_atomically

FLAGS = flags.FlagValues()

SUITE = flags.DEFINE_enum("suite", "judge", ["judge"], "what is measured.", flag_values=FLAGS)
MODEL = flags.DEFINE_string("model", None, "a Hugging Face folder; random weights when not given", flag_values=FLAGS)
SIZE = flags.DEFINE_enum(
    "size",
    None,
    ["tiny", "110m", "7b"],
    "of the random weights; 110m on a CPU and 7b elsewhere when not given.",
    flag_values=FLAGS,
)
TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "a folder with tokenizer files for the random weights; a small one when not given", flag_values=FLAGS
)
INPUT = flags.DEFINE_string("input", None, "judge records; made ones when not given", flag_values=FLAGS)
RECORDS = flags.DEFINE_integer("records", 16, "how many pairs are judged", lower_bound=1, flag_values=FLAGS)
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


def main() -> None:
    modes = MODES.value
    if not modes or not set(modes) <= {"scores", "explain", "distribution"}:
        raise InputError(f"--modes={','.join(modes)}: must be of scores, explain, distribution")
    if INPUT.value is not None:
        check_records(Path(INPUT.value), kind="pair")
    if TOKENIZER.value is not None:
        from judgelm_jax.tokenization import load_tokenizer

        load_tokenizer(Path(TOKENIZER.value))
    with tempfile.TemporaryDirectory() as scratch:
        results = _measure(Path(scratch), modes)
    for result in results["modes"]:
        _print(result)
    if JSON.value is not None:
        with write_atomically(Path(JSON.value)) as file:
            json.dump(results, file, indent=1)


def entry() -> int:
    """The console command."""
    return run(main, FLAGS, "bench")


def _measure(scratch: Path, modes: list[str]) -> dict[str, Any]:
    import itertools

    import jax

    from judgelm_jax import laboratory
    from judgelm_jax.bench import judge_suite
    from judgelm_jax.config import JudgeConfig
    from judgelm_jax.judging.judge import Judge
    from judgelm_jax.runtime import enable_compilation_cache, require_devices

    require_devices()
    enable_compilation_cache()
    platform = jax.devices()[0].platform
    dtype = DTYPE.value or ("float32" if platform == "cpu" else "bfloat16")
    folder = Path(MODEL.value) if MODEL.value else _random_checkpoint(scratch / "model", platform, dtype)
    if INPUT.value is None:
        records = [pair.record for pair in laboratory.make_pairs(RECORDS.value, seed=0)]
    else:
        records = [record for _, record in itertools.islice(read_jsonl(Path(INPUT.value)), RECORDS.value)]
    model = _peer_model(folder, platform, dtype)
    results: dict[str, Any] = {
        "device": f"{len(jax.devices())} × {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "dtype": dtype,
        "model": MODEL.value or f"random {SIZE.value or ('110m' if platform == 'cpu' else '7b')}",
        "modes": [],
    }
    for mode in modes:
        print(f"measuring {mode}: {len(records)} pairs in both orders, {ROUNDS.value} rounds of each side", flush=True)
        settings = JudgeConfig(mode=mode, orders="both", dtype=dtype, max_new_tokens=NEW_TOKENS.value)
        judge = Judge.load(str(folder), MESH.value, settings)
        config = judge.engine.config
        peers = {}
        if model is not None and mode != "distribution":
            peers = {
                "published loop": judge_suite.published_loop(model, config.eos_ids),
                f"generate, batches of {PEER_BATCH.value}": judge_suite.batched_generate(
                    model, config.eos_ids, PEER_BATCH.value
                ),
            }
        suite = judge_suite.Suite(mode, records, ROUNDS.value)
        layers = judge.engine.params["layers"]
        parameters = sum(leaf.size for leaf in jax.tree.leaves(layers))
        results["modes"].append(judge_suite.measure(judge, peers, suite, parameters, PEAK_TFLOPS.value))
        del judge
    return results


def _random_checkpoint(folder: Path, platform: str, dtype: str) -> Path:
    import shutil

    import jax.numpy as jnp

    from judgelm_jax import laboratory
    from judgelm_jax.bench.checkpoints import model_config, write_random_checkpoint
    from judgelm_jax.tokenization import TOKENIZER_FILES

    write_random_checkpoint(
        folder, model_config(SIZE.value or ("110m" if platform == "cpu" else "7b")), jnp.dtype(dtype), seed=0
    )
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
        f"prompt tokens/s {result['prompt_tokens_per_second']:.0f}{peak}, padding {100 * result['padding']:.1f} %{busy}, host "
        f"{100 * result['host_share']:.1f} %, compiled {result['programs']} programs in {result['compile_seconds']:.1f} s and "
        f"{result['programs_after_warm_up']} after the warm-up"
    )
