"""judges answer pairs with a LLaMA-family judge.

Reads judge records (JSON Lines), writes one judgment a record in the same order, and prints a summary. Work goes to
OUTPUT.partial/ and OUTPUT appears when all is done; after a kill, the same command with --resume goes on.

  judgelm-judge --model=judge --input=records.jsonl --output=judgments.jsonl --orders=both

On several hosts run the same command on each, with --coordinator, --processes and --process, or with --distributed where the
cluster says those (Slurm, Kubernetes, Cloud TPU, Open MPI): one judge lies on the devices of all of them, as --mesh says.
"""

import contextlib
import dataclasses
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from judgelm_jax.commands.command_line import check_json, describe, run, write_json
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.calibration import Calibration, read_calibration
from judgelm_jax.judging import manifest, output
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.kinds import KINDS
from judgelm_jax.presets import JUDGELM, NAMES
from judgelm_jax.processes.process_flags import define
from judgelm_jax.prompts.arrangements import parse_wanted
from judgelm_jax.records.output_files import check_output
from judgelm_jax.stopping import listening
from judgelm_jax.verdicts.verdicts import STATUSES

if TYPE_CHECKING:
    from judgelm_jax.judging.runner import Job

FLAGS = flags.FlagValues()

_DEFAULTS = JudgeConfig()
MODEL = flags.DEFINE_string(
    "model",
    None,
    "an Orbax directory, a Hugging Face directory, a GGUF, a PEFT adapter or a hub id",
    required=True,
    flag_values=FLAGS,
)
BASE = flags.DEFINE_string(
    "base", None, "the base of an adapter, in place of the one that it names: folder or hub id", flag_values=FLAGS
)
INPUT = flags.DEFINE_string("input", None, "judge records, JSON Lines", required=True, flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "where the judgments go, JSON Lines", required=True, flag_values=FLAGS)
KIND = flags.DEFINE_enum("kind", _DEFAULTS.kind, JudgeConfig.KINDS, "what is judged.", flag_values=FLAGS)
PRESET = flags.DEFINE_string(
    "preset",
    _DEFAULTS.preset,
    f"how the judge is asked and read: {', '.join((JUDGELM, *NAMES))}, or a .toml file.",
    flag_values=FLAGS,
)
TURNS = flags.DEFINE_enum(
    "turns",
    _DEFAULTS.turns,
    JudgeConfig.TURNS,
    "kind conversation: what is judged, the replies to the last turn or to all.",
    flag_values=FLAGS,
)
MODE = flags.DEFINE_enum(
    "mode",
    _DEFAULTS.mode,
    JudgeConfig.MODES,
    "scores: only the score line, constrained so that it always parses; explain: scores and a reason, unconstrained; "
    "distribution: the exact probability of every score line, of winning and of a tie.",
    flag_values=FLAGS,
)
ORDERS = flags.DEFINE_enum(
    "orders",
    _DEFAULTS.orders,
    JudgeConfig.ORDERS,
    "the order in which two answers are shown; both: one row with the merged verdict. Forward when not given.",
    flag_values=FLAGS,
)
ARRANGEMENTS = flags.DEFINE_string(
    "arrangements",
    None,
    "the number of orders in which a record's answers are shown, their scores averaged: with as many as there are answers each "
    "stands at each position once; all: every order, of at most four answers. One when not given",
    flag_values=FLAGS,
)
REFERENCE = flags.DEFINE_enum(
    "reference",
    _DEFAULTS.reference,
    JudgeConfig.REFERENCES,
    "auto: the record's own reference where it has one; none: no references; required: a record without one is an error.",
    flag_values=FLAGS,
)
REFERENCES = flags.DEFINE_string(
    "references", None, "reference answers by question_id, JSON Lines; they override the records' own", flag_values=FLAGS
)
TEMPERATURE = flags.DEFINE_float("temperature", _DEFAULTS.temperature, "0: greedy; above: sampling", flag_values=FLAGS)
SEED = flags.DEFINE_integer(
    "seed", _DEFAULTS.seed, "of sampling; what is drawn for a record depends on this and its id only", flag_values=FLAGS
)
MAX_NEW_TOKENS = flags.DEFINE_integer(
    "max_new_tokens", _DEFAULTS.max_new_tokens, "mode explain: the longest response", flag_values=FLAGS
)
ON_OVERFLOW = flags.DEFINE_enum(
    "on_overflow",
    _DEFAULTS.on_overflow,
    JudgeConfig.OVERFLOWS,
    "a prompt longer than the context. truncate: shorten the answers; skip: do not judge the record; error: end the run; "
    "pairs: judge all pairs of the answers, in both orders, and rank them by Bradley-Terry (kind multi).",
    flag_values=FLAGS,
)
SCORE_GRID = flags.DEFINE_string(
    "score_grid", _DEFAULTS.score_grid, "mode distribution: the scores, FIRST:LAST:STEP", flag_values=FLAGS
)
CALIBRATION = flags.DEFINE_string(
    "calibration", None, "mode distribution: the output of judgelm-calibrate, applied to every judgment", flag_values=FLAGS
)
KEEP_AS = flags.DEFINE_string(
    "keep_as",
    None,
    "goes before the name of each field of a record that its judgment has, too (status, winner, ...), as input_; without it "
    "such a field is an error",
    flag_values=FLAGS,
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "rows that are computed together; automatic when not given", flag_values=FLAGS
)
DEVICE_MEMORY = flags.DEFINE_float(
    "device_memory", None, "GiB that a device may use; when not given, what it has", flag_values=FLAGS
)
MESH = flags.DEFINE_string(
    "mesh", "data:-1", "devices along the axes data, fsdp, tensor, as data:2,tensor:4; -1: those that remain", flag_values=FLAGS
)
DTYPE = flags.DEFINE_enum(
    "dtype", _DEFAULTS.dtype, JudgeConfig.DTYPES, "of the computation; float32 is exact and slower.", flag_values=FLAGS
)
CACHE_DTYPE = flags.DEFINE_enum(
    "cache_dtype",
    _DEFAULTS.cache_dtype,
    JudgeConfig.CACHE_DTYPES,
    "mode explain: of the keys and values of responses; int8: half the memory. That of the computation when not given",
    flag_values=FLAGS,
)
ATTENTION = flags.DEFINE_enum(
    "attention",
    _DEFAULTS.attention,
    JudgeConfig.ATTENTIONS,
    "the attention kernel; auto: the fastest of the platform that fits.",
    flag_values=FLAGS,
)
CONTEXT = flags.DEFINE_integer(
    "context",
    None,
    "the longest sequence in tokens, prompt and response together; by default what the model's config states",
    lower_bound=16,
    upper_bound=2**24,
    flag_values=FLAGS,
)
MODEL_ID = flags.DEFINE_string(
    "model_id", None, "the judge's name in the judgments; the last part of --model when not given", flag_values=FLAGS
)
LIMIT = flags.DEFINE_integer("limit", None, "judge only this many records from the start", lower_bound=1, flag_values=FLAGS)
SHARD = flags.DEFINE_string(
    "shard", "0/1", "i/n: judge every n-th record from the i-th (from 0); the last of n such jobs joins them", flag_values=FLAGS
)
RESUME = flags.DEFINE_boolean("resume", False, "go on with an unfinished run, or start one", flag_values=FLAGS)
PROCESSES = define(FLAGS)
DRY_RUN = flags.DEFINE_boolean(
    "dry_run",
    False,
    "check everything, compile, try some prompts, say prompts, tokens, programs, memory and time, and write nothing",
    flag_values=FLAGS,
)
PROFILE = flags.DEFINE_integer(
    "profile", 0, "trace this many device steps with JAX's profiler into OUTPUT.profile/", lower_bound=0, flag_values=FLAGS
)
JSON = flags.DEFINE_string("json", None, "also write the summary as JSON to this file", flag_values=FLAGS)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace the file of --json if it exists", flag_values=FLAGS)

_STOPPED = "and what was judged is kept: run again with --resume to go on"


def main() -> None:
    settings = JudgeConfig(
        kind=KIND.value,
        preset=PRESET.value,
        turns=TURNS.value,
        mode=MODE.value,
        orders=ORDERS.value,
        arrangements=parse_wanted(ARRANGEMENTS.value),
        reference=REFERENCE.value,
        temperature=TEMPERATURE.value,
        seed=SEED.value,
        max_new_tokens=MAX_NEW_TOKENS.value,
        on_overflow=ON_OVERFLOW.value,
        dtype=DTYPE.value,
        score_grid=SCORE_GRID.value,
        attention=ATTENTION.value,
        batch_size=BATCH_SIZE.value,
        device_memory=DEVICE_MEMORY.value,
        keep_as=KEEP_AS.value,
        cache_dtype=CACHE_DTYPE.value,
    )
    calibration = read_calibration(Path(CALIBRATION.value)) if CALIBRATION.value else None
    if calibration is not None and settings.mode != "distribution":
        raise InputError(
            "--calibration corrects probabilities, which only --mode=distribution gives; leave it out, or set the mode"
        )
    if calibration is not None and KINDS[settings.kind].answers != (2, 2):
        raise InputError(f"--calibration corrects the probabilities of pairs; --kind={settings.kind} has none, leave it out")
    part, parts = _parse_shard(SHARD.value)
    PROCESSES.check()
    MeshConfig.parse(MESH.value)
    records, target = Path(INPUT.value), Path(OUTPUT.value)
    references = Path(REFERENCES.value) if REFERENCES.value else None
    read = [records, *([references] if references else [])]
    check_output(target, True, read)
    beside = manifest.beside(target)
    check_output(beside, True, read)
    if beside.exists():
        manifest.read(beside)  # what is none of ours is not replaced
    own = {"command": "judge", "output": str(target), "shard": SHARD.value}
    check_json(JSON.value, OVERWRITE.value, [target, beside, *read], own if RESUME.value else None)

    with listening("judge", _tell_others, _STOPPED, [signal.SIGTERM]):
        from judgelm_jax.processes.ending import together

        with together(PROCESSES.asked("judge"), describe):
            _judge(settings, calibration, part, parts, own)


def _judge(settings: JudgeConfig, calibration: Calibration | None, part: int, parts: int, own: dict[str, Any]) -> None:
    """What follows when the flags are right, in each process."""
    target, beside = Path(OUTPUT.value), manifest.beside(Path(OUTPUT.value))
    complete = output.is_complete(target, RESUME.value)

    from judgelm_jax.judging import across_hosts, runner
    from judgelm_jax.processes.agreement import compare
    from judgelm_jax.processes.participants import introduce

    job = runner.Job(
        input=Path(INPUT.value),
        output=target,
        references=Path(REFERENCES.value) if REFERENCES.value else None,
        limit=LIMIT.value,
        part=part,
        parts=parts,
        resume=RESUME.value,
    )
    checked = runner.check(job, settings)
    model_id = MODEL_ID.value or Path(MODEL.value).resolve().name

    from judgelm_jax.checkpoints import open_checkpoint
    from judgelm_jax.devices.profiling import Profile
    from judgelm_jax.devices.runtime import enable_compilation_cache, is_first_process, require_devices
    from judgelm_jax.judging.judge import Judge
    from judgelm_jax.judging.rehearsal import rehearse

    has_manifest = beside.exists()
    compare("the output", {"whether it is complete": complete, "whether it has a manifest": has_manifest})
    if complete and not has_manifest:
        _finish(job, checked.records, own, "is complete, nothing to do (it has no manifest, so settings are not compared)")
        return
    checkpoint = open_checkpoint(MODEL.value, BASE.value, CONTEXT.value)
    fingerprint = runner.fingerprint(job, settings, checked, checkpoint.fingerprint, model_id)
    if calibration is not None:
        fingerprint["calibration"] = dataclasses.asdict(calibration)
    told = {f"--{name}": value for name, value in fingerprint.items()}
    told |= {
        "--output": str(target.absolute()),
        "--dry_run": DRY_RUN.value,
        "--shard": SHARD.value,
        "--mesh": MESH.value,
        "--resume": RESUME.value,
    }
    told |= {"--batch_size": settings.batch_size, "--attention": settings.attention, "--device_memory": settings.device_memory}
    compare("the run", told)
    if complete:
        output.refuse_other_settings(target, fingerprint, checked.records)
        _finish(job, checked.records, own, "is complete, nothing to do")
        return
    runner.check_room(job, settings, checked, checkpoint.required_tokenizer(), checkpoint.config.context)
    require_devices()
    enable_compilation_cache()
    introduce()
    if DRY_RUN.value:
        judge = Judge.of_checkpoint(checkpoint, MESH.value, settings, model_id, MODEL.value)
        found = rehearse(job, checked, judge)
        if is_first_process():
            print("\n".join(found.lines()))
            write_json(JSON.value, own | found.summary())
        return
    with across_hosts.opened(
        lambda: output.open_shard(target, fingerprint, checked.records, part, parts, RESUME.value), checked.records, part, parts
    ) as shard:
        if shard is None:
            output.refuse_other_settings(target, fingerprint, checked.records)
            _finish(job, checked.records, own, "was completed by another process, nothing to do")
            return
        judge = Judge.of_checkpoint(checkpoint, MESH.value, settings, model_id, MODEL.value)
        if is_first_process():
            print(f"judging {shard.remaining()} of {checked.records} records", flush=True)
        with contextlib.closing(Profile(target.with_name(target.name + ".profile"), PROFILE.value)) as profile:
            judge.engine.programs.launched = profile.stepped
            summary = runner.run(job, checked, shard, judge, calibration)
    if is_first_process():
        _report(summary, target)
        write_json(JSON.value, own | summary)


def _tell_others(line: str, code: int) -> None:
    """Where this is one of several processes: before that module is imported, it is not."""
    if "judgelm_jax.processes.ending" in sys.modules:
        sys.modules["judgelm_jax.processes.ending"].tell(line, code)


def entry() -> int:
    """The console command."""
    code = run(main, FLAGS, "judge")
    if "judgelm_jax.processes.ending" in sys.modules:  # JAX was started
        sys.modules["judgelm_jax.processes.ending"].leave(code)
    return code


def _parse_shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text, re.ASCII)  # the last job has all shards open at once
    if not match or int(match[1]) >= int(match[2]):
        raise InputError(f"--shard={text}: must be i/n with 0 ≤ i < n ≤ 999, as 0/4, 1/4, 2/4 and 3/4 for four jobs")
    return int(match[1]), int(match[2])


def _finish(job: "Job", records: int, own: dict[str, Any], says: str) -> None:
    """Nothing remains to be done: the summary counts what OUTPUT holds."""
    from judgelm_jax.judging import runner
    from judgelm_jax.processes import store

    if store.own():
        return
    output.discard_leftovers(job.output)
    print(f"{job.output}: {says}")
    summary = runner.summary_of_complete(job, records)
    _report_counts(summary)
    write_json(JSON.value, own | summary)


def _report_counts(summary: dict[str, Any]) -> None:
    statuses = ", ".join(f"{summary[name]} {name}" for name in STATUSES)
    print(f"judged     {summary['judged']} records; {summary['already_done']} were done before")
    print(f"in all     {summary['records']} records ({statuses})")
    if "consistent" in summary:
        print(
            f"orders     {summary['consistent']} consistent, {summary['inconsistent']} not, {summary['without_winner']} "
            "without a winner in one of them"
        )
    for answers, found in summary.get("position_effects", {}).items():
        worth = ", ".join(f"{effect:+.2f}" for effect in found["effects"])
        print(f"positions  {worth}: what each is worth, the mean of {found['records']} records with {answers} answers")
    for name in ("position", "covered_mass"):
        if summary.get(name, {}).get("warning"):
            print(f"warning    {summary[name]['warning']}")


def _report(summary: dict[str, Any], target: Path) -> None:
    _report_counts(summary)
    rate = summary["judged"] / max(summary["seconds"], 1e-9)
    print(
        f"time       {summary['seconds']:.1f} s ({rate:.2f} records/s), {summary['compile_seconds']:.1f} s of it compiling "
        f"{summary['programs_compiled']} programs"
    )
    print(
        f"tokens     {summary['prompt_tokens']} of prompts, {summary['shared_tokens']} of them computed with another prompt's "
        f"({100 * summary['padding']:.1f} % padding beside what is computed), "
        f"{summary['generated_tokens']} generated"
    )
    print(f"output     {target}" if summary["complete"] else f"output     waits for the other shards of {target}")
