"""Converts a checkpoint from its Hugging Face form to the one that judging loads from, and back.

  judgelm-convert --source=HF_DIR_OR_HUB_ID --target=DIR --to=orbax
  judgelm-convert --source=DIR --target=HF_DIR --to=hf --verify

No bit of a weight changes, either way, but with --quantize=int8, which halves the memory of judging. Tokenizer files go along.
The target appears when it is complete.
"""

import sys
import time
from pathlib import Path

from absl import flags

from judgelm_jax.commands.command_line import check_json, run, write_json
from judgelm_jax.errors import InputError

FLAGS = flags.FlagValues()
SOURCE = flags.DEFINE_string(
    "source",
    None,
    "a Hugging Face folder, a hub id, a GGUF, a PEFT adapter, or a converted folder",
    flag_values=FLAGS,
    required=True,
)
BASE = flags.DEFINE_string(
    "base", None, "the base of an adapter, in place of the one that it names: folder or hub id", flag_values=FLAGS
)
TARGET = flags.DEFINE_string("target", None, "the folder to write", flag_values=FLAGS, required=True)
TO = flags.DEFINE_enum(
    "to",
    None,
    ["orbax", "hf"],
    "the form to write: for judging (orbax) or for other programs (hf)",
    flag_values=FLAGS,
    required=True,
)
QUANTIZE = flags.DEFINE_enum(
    "quantize",
    None,
    ["int8"],
    "round matrices to 8 bits with a scale for each row: to judge, not to train",
    flag_values=FLAGS,
)
VERIFY = flags.DEFINE_bool(
    "verify",
    False,
    "compare the logits of a fixed text with those of PyTorch, in float64; either side holds one layer at a time",
    flag_values=FLAGS,
)
OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "replace a target that is a checkpoint, and the file of --json", flag_values=FLAGS
)
CONTEXT = flags.DEFINE_integer(
    "context",
    None,
    "the longest sequence in tokens, written as max_sequence_length; by default what the source's config states",
    lower_bound=16,
    upper_bound=2**24,
    flag_values=FLAGS,
)
SHARD_SIZE = flags.DEFINE_float("shard_size", 5.0, "largest file of --to=hf, in GB", lower_bound=0.001, flag_values=FLAGS)
JSON = flags.DEFINE_string("json", None, "also write the summary to this file, as JSON", flag_values=FLAGS)


def main() -> None:
    """Converts, verifies if asked to, and prints a summary."""
    check_json(JSON.value, OVERWRITE.value, [Path(SOURCE.value), Path(TARGET.value)])
    if QUANTIZE.value and TO.value == "hf":
        raise InputError("--quantize=int8 is a form of --to=orbax; other programs do not read it")
    if QUANTIZE.value and VERIFY.value:
        raise InputError("--quantize rounds weights, so their logits differ; leave --verify out, or convert without --quantize")
    if VERIFY.value:
        _require_torch()
    from judgelm_jax.checkpoints import open_checkpoint
    from judgelm_jax.checkpoints.conversion import convert
    from judgelm_jax.checkpoints.quantizing import in_int8
    from judgelm_jax.checkpoints.tensor_names import stored_bytes, tensor_table
    from judgelm_jax.checkpoints.verification import TOLERANCE, bytes_needed, largest_difference, transformers_reads

    start, target = time.monotonic(), Path(TARGET.value)
    source = open_checkpoint(SOURCE.value, BASE.value, CONTEXT.value)
    if QUANTIZE.value:
        source = in_int8(source)
    theirs = source.folder if transformers_reads(source) else target
    if VERIFY.value and TO.value == "orbax" and theirs == target:
        raise InputError("--verify needs a Hugging Face checkpoint on one side; leave it out, or use --to=hf")
    if VERIFY.value:
        source.required_tokenizer()
    if source.tokenizer is None:
        print(
            f"judgelm-convert: {source.folder} has no tokenizer, which judging needs; put its tokenizer files there and convert"
            " again",
            file=sys.stderr,
        )
    if VERIFY.value:
        needed = bytes_needed(source, theirs_in_layers=not theirs.is_file())
        print(f"--verify will need {needed / 1e9:.2f} GB of memory beside that of the programs (about 1.5 GB)", flush=True)
    convert(source, target, TO.value, overwrite=OVERWRITE.value, shard_bytes=int(SHARD_SIZE.value * 1e9))
    tensors, size = len(tensor_table(source.config)), stored_bytes(source.weights, source.config)
    seconds = time.monotonic() - start
    summary = {
        "source": SOURCE.value,
        "target": str(target),
        "to": TO.value,
        "quantize": QUANTIZE.value,
        "tensors": tensors,
        "bytes": size,
        "seconds": round(seconds, 3),
    }
    print(f"{target}: {tensors} tensors, {size / 1e9:.3f} GB, written in {seconds:.1f} s")
    if VERIFY.value:
        ours = source if theirs == target else open_checkpoint(str(target))
        difference = largest_difference(ours, theirs)
        summary["largest_logit_difference"] = difference
        print(f"largest difference to the logits of PyTorch, float64: {difference:.2e}")
    write_json(JSON.value, summary)
    if VERIFY.value and not difference <= TOLERANCE:
        raise InputError(
            f"{target}: its logits differ from those of PyTorch by {difference:.2e}, more than {TOLERANCE:.0e}; "
            "do not use it, and report the checkpoint"
        )


def _require_torch() -> None:
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise InputError("--verify compares with PyTorch, which is not installed; pip install 'judgelm-jax[torch]'")


def entry() -> int:
    """Runs the command; returns its exit code."""
    return run(main, FLAGS, "convert")
