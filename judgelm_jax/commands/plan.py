"""says what a training or a judge needs on hardware that is not at hand, and how fast it could be.

The real programs are compiled by the real compilers, which need no device; nothing is run. Memory, FLOPs, bytes and collectives
are the compiler's, seconds a roofline whose assumptions are printed.

  judgelm-plan --config=configs/judgelm_33b.py --program=train --topology=a100-80gb:8
  judgelm-plan --model=7b --program=scores --topology=v5e:2x2 --search

GPUs need the extra [plan-gpu], TPUs [plan-tpu]; `cpu:8` needs neither.
"""

import dataclasses
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from judgelm_jax.commands.command_line import check_json, run, write_json
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.errors import InputError
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.planning import topology as topologies
from judgelm_jax.training.config_fields import ConfigFlags
from judgelm_jax.training_config import TrainConfig, check

FLAGS = ConfigFlags()

_DEFAULTS = JudgeConfig()
config_flags.DEFINE_config_file("config", None, "a training config, as configs/judgelm_33b.py", flag_values=FLAGS)
MODEL = flags.DEFINE_string("model", None, "7b, 13b, 33b, or a checkpoint: folder or hub id", flag_values=FLAGS)
QUANTIZE = flags.DEFINE_enum("quantize", None, ["int8"], "of a judge named by its shape: matrices in 8 bits", flag_values=FLAGS)
PROGRAM = flags.DEFINE_enum(
    "program", "train", ("train", *JudgeConfig.MODES), "what is planned: a training step, or a judge's mode.", flag_values=FLAGS
)
TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "a100-40gb, a100-80gb, h100, h200 with :COUNT; v5e, v5p, v6e with :SHAPE as 2x2; cpu:COUNT",
    flag_values=FLAGS,
)
MESH = flags.DEFINE_string(
    "mesh", None, "devices along data, fsdp, tensor; when not given, the program's own", flag_values=FLAGS
)
SEARCH = flags.DEFINE_boolean(
    "search", False, "try meshes, micro-batches and remat; print the best that fits", flag_values=FLAGS
)
PROVEN = flags.DEFINE_string(
    "proven", None, "make the table of proven configurations in this file anew, and nothing else", flag_values=FLAGS
)
ONLY = flags.DEFINE_string("only", "", "of --proven: the rows with this text, as '33b | train'", flag_values=FLAGS)
TARGETS = flags.DEFINE_integer("targets", 512, "of a training row: tokens that are learned", lower_bound=1, flag_values=FLAGS)
PROMPT_TOKENS = flags.DEFINE_integer("prompt_tokens", 800, "of a judge's prompt", lower_bound=2, flag_values=FLAGS)
MAX_NEW_TOKENS = flags.DEFINE_integer(
    "max_new_tokens", _DEFAULTS.max_new_tokens, "program explain: the longest response", flag_values=FLAGS
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "of a judge: rows that are computed together", flag_values=FLAGS)
DTYPE = flags.DEFINE_enum("dtype", _DEFAULTS.dtype, JudgeConfig.DTYPES, "of a judge's computation.", flag_values=FLAGS)
CACHE_DTYPE = flags.DEFINE_enum(
    "cache_dtype", _DEFAULTS.cache_dtype, JudgeConfig.CACHE_DTYPES, "program explain: as of judgelm-judge", flag_values=FLAGS
)
ATTENTION = flags.DEFINE_enum(
    "attention", _DEFAULTS.attention, JudgeConfig.ATTENTIONS, "of a judge: the attention kernel.", flag_values=FLAGS
)
DEVICE_MEMORY = flags.DEFINE_float(
    "device_memory", None, "GiB that a device may use; when not given, what it has", flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string("output", None, "also write the plan as JSON to this file", flag_values=FLAGS)
JSON = flags.DEFINE_string("json", None, "the same as --output", flag_values=FLAGS)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace the output if it exists", flag_values=FLAGS)


def main() -> None:
    if PROVEN.value is not None:
        for name in ("h100:8", "v5e:1"):
            topologies.start(topologies.parse(name))

        from judgelm_jax.planning.proven import regenerate

        regenerate(Path(PROVEN.value), ONLY.value, lambda line: print(line, flush=True))
        return
    if TOPOLOGY.value is None:
        raise InputError("--topology is missing; name hardware, as a100-80gb:8")
    if (FLAGS.config is None) == (MODEL.value is None):
        raise InputError("give either --config (a training config) or --model (7b, 13b, 33b, or a checkpoint)")
    topology = topologies.with_memory(topologies.parse(TOPOLOGY.value), DEVICE_MEMORY.value)
    config = FLAGS.config
    if config is not None and not Path(config_flags.get_config_filename(FLAGS["config"])).is_file():
        raise InputError(f"{config_flags.get_config_filename(FLAGS['config'])}: there is no such file; name a config")
    if config is not None and not isinstance(config, TrainConfig):
        raise InputError(f"--config: get_config() returns a {type(config).__name__}; it must return a TrainConfig")
    training = PROGRAM.value == "train"
    settings = JudgeConfig(
        mode="scores" if training else PROGRAM.value,
        max_new_tokens=MAX_NEW_TOKENS.value,
        batch_size=BATCH_SIZE.value,
        dtype=DTYPE.value,
        attention=ATTENTION.value,
        cache_dtype=CACHE_DTYPE.value,
    )
    if MESH.value is not None:
        MeshConfig.parse(MESH.value)
    for output in (OUTPUT.value, JSON.value):
        check_json(output, OVERWRITE.value, [])
    topologies.start(topology)

    from judgelm_jax.planning import models
    from judgelm_jax.planning.plan import Question, lines, plan
    from judgelm_jax.planning.search import search

    tokenizer = None
    if config is not None:
        check(config)
        model = models.model_of(config.model)
    elif MODEL.value in models.SHAPES:
        config = TrainConfig(model=models.SHAPES[MODEL.value])
        model = models.model_of(config.model)
    else:
        model, tokenizer, config = models.of_checkpoint(MODEL.value)
    if QUANTIZE.value:
        model = dataclasses.replace(model, int8=True)
    question = Question(
        model=model,
        topology=topology,
        mesh=MESH.value or (config.computation.mesh if training else "data:-1"),
        training=config if training else None,
        judge=None if training else settings,
        targets=TARGETS.value,
        prompt_tokens=PROMPT_TOKENS.value,
        tokenizer=tokenizer,
    )
    result = search(question, lambda line: print(line, file=sys.stderr, flush=True)) if SEARCH.value else plan(question)
    print("\n".join(lines(result)))
    for output in (OUTPUT.value, JSON.value):
        write_json(output, result)


def entry() -> int:
    """The console command."""
    return run(main, FLAGS, "plan")
