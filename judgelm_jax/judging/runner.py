"""A whole judging run: a file of records in, a file of judgments out, whatever happens in between."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.calibration import Calibration, apply
from judgelm_jax.judging import across_hosts
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.judge import Judge
from judgelm_jax.judging.judgment_tally import Tally, judgments
from judgelm_jax.judging.prepared import windows
from judgelm_jax.judging.progress import Progress
from judgelm_jax.judging.trees import Trees
from judgelm_jax.kinds import Case, Kind
from judgelm_jax.presets import kind_of
from judgelm_jax.prompts.arrangements import arrangements
from judgelm_jax.records.json_lines import Record, read_jsonl
from judgelm_jax.records.records import answers_of, check_records, identity, question_identity, read_references, reference_of
from judgelm_jax.tokens.tokenization import Tokenizer
from judgelm_jax.verdicts import distributions, merging, verdicts

# The settings that a fingerprint leaves out: they may round otherwise.
_ROUNDING = ("attention", "batch_size", "device_memory")


@dataclasses.dataclass(frozen=True)
class Job:
    """The files of a run and the part of the input that it judges (`part` of `parts`, as `--shard=i/n`)."""

    input: Path
    output: Path
    references: Path | None = None
    limit: int | None = None
    part: int = 0
    parts: int = 1
    resume: bool = False


@dataclasses.dataclass(frozen=True)
class CheckedInput:
    """What is known of the input before a model is loaded."""

    records: int
    sha256: str
    references: Mapping[str, str]


def check(job: Job, settings: JudgeConfig) -> CheckedInput:
    """Reads the whole input and the references; everything that is wrong with their structure ends here.

    Raises:
      InputError: names file and line.
    """
    if job.input.is_dir():
        raise InputError(f"{job.input}: is a folder; name a file, JSON Lines")
    if job.input.exists() and not job.input.is_file():
        raise InputError(f"{job.input}: is no plain file, and it is read more than once; write the records to a file")
    references = {} if job.references is None else read_references(job.references)
    kind = kind_of(settings.kind, settings.preset, settings.turns)

    def check_record(record: Record) -> None:
        merging.kept(record, settings.keep_as)
        reference = references.get(question_identity(record), reference_of(record))
        for case in kind.cases_of(record, reference, settings.reference):
            arrangements(
                len(case.answers), orders=settings.orders, wanted=settings.arrangements, identity=identity(record), seed=0
            )

    summary = check_records(job.input, answers=kind.answers, structure=kind.structure, limit=job.limit, also=check_record)
    if settings.reference == "required" or (job.references is not None and settings.reference != "none"):
        for number, record in itertools.islice(read_jsonl(job.input), summary.records):
            if question_identity(record) not in references and reference_of(record) is None:
                where = "it has none" if job.references is None else f"neither it nor {job.references} has one"
                raise InputError(
                    f"{job.input}:{number}: a reference for question_id {question_identity(record)!r} is required and {where}; "
                    f"add it{'' if job.references is None else ', or judge without --references'}"
                )
    return CheckedInput(summary.records, summary.sha256, references)


def check_room(job: Job, settings: JudgeConfig, checked: CheckedInput, tokenizer: Tokenizer, context: int) -> None:
    """Refuses more answers than the context of the model holds, however short they are, unless `on_overflow` says what then.

    Raises:
      InputError: names the line with the most answers.
    """
    kind = kind_of(settings.kind, settings.preset, settings.turns)
    if kind.answers[1] is not None or settings.on_overflow in ("pairs", "skip"):
        return
    most, place = 0, 0
    for number, record in itertools.islice(read_jsonl(job.input), checked.records):
        if (count := len(answers_of(record))) > most:
            most, place = count, number
    bare = Case("", ("",) * most)
    words = distributions.grid(settings.score_grid) if settings.mode == "distribution" else kind.scores
    response = settings.max_new_tokens
    if settings.mode != "explain":
        response = Trees(tokenizer, settings.mode, settings.preset).of(kind.form(bare, words)).longest
    needed = len(tokenizer.encode(kind.prompt(bare, bare.answers))) + (tokenizer.bos_id is not None) + response
    if most and needed > context:
        raise InputError(
            f"{job.input}:{place}: {most} answers need {needed} tokens even where all are empty, and the model's context has "
            f"{context}; pass --on_overflow=pairs to judge them two by two, or give fewer"
        )


def fingerprint(job: Job, settings: JudgeConfig, checked: CheckedInput, model: str, model_id: str) -> dict[str, Any]:
    """Everything that a judgment depends on, by name. `model` is the fingerprint of the checkpoint."""
    kind = kind_of(settings.kind, settings.preset, settings.turns)
    references = hashlib.sha256()
    for pair in sorted(checked.references.items()):
        references.update(repr(pair).encode("utf-8", "surrogatepass"))
    return {
        "model": model,
        "model_id": model_id,
        "prompt": kind.sha256 or hashlib.sha256(_sample(kind).encode()).hexdigest(),
        "input": checked.sha256,
        "references": None if job.references is None else references.hexdigest(),
        "limit": job.limit,
        **{name: value for name, value in dataclasses.asdict(settings).items() if name not in _ROUNDING},
        "orders": settings.orders or "forward",
    }


def _sample(kind: Kind) -> str:
    """What the prompts of a kind look like, that of an answer alone included where there is one."""
    known = "known" if kind.needs_reference else None
    sample = kind.prompt(Case("question", ("first", "second"), "reference", known), ["first", "second"])
    return sample + (kind.prompt(Case("question", ("first",)), ["first"]) if kind.answers[0] == 1 else "")


def run(
    job: Job, checked: CheckedInput, shard: across_hosts.Shard, judge: Judge, calibration: Calibration | None = None
) -> dict[str, Any]:
    """Judges what the shard still lacks, calibrates it where asked, and joins the shards when this one is the last.

    Returns the summary: what this run did (`judged`, tokens, seconds), and what the whole output holds, whoever judged it
    (`records` and all that `Tally` counts); while other shards are missing, what this shard holds.

    Raises:
      InputError: the input is no longer what `check` saw, a prompt is too long and `on_overflow` is `error`, or the disk is
        full. All judgments so far are written.
    """
    start = time.perf_counter()
    remaining = shard.remaining()
    already = len(range(job.part, checked.records, job.parts)) - remaining
    held = Tally(shard.rows() if already else ())
    progress = Progress(shard.folder, job.part, checked.records, held.summary(), already + remaining)
    with contextlib.closing(progress):
        for prepared in _ahead(
            lambda window: judge.prepare(window, checked.references, judge.settings.orders), _todo(job, shard)
        ):
            for index, judged_row in judge.judge_prepared(prepared):
                row = judged_row if calibration is None else apply(judged_row, calibration)
                shard.write(index, row)  # at once: a kill costs only what is not judged yet
                held.add(row)
                progress.add(row)
    if shard.remaining():
        raise InputError(f"{job.input}: has fewer records than at the start of the run; leave it as it is and use --resume")
    judged = time.perf_counter() - start
    complete = shard.finish()
    if complete and job.parts > 1:  # others judged the rest
        held = Tally(judgments(job.output))
    counts = judge.engine.counts
    return {
        "records": checked.records if complete else already + remaining,
        "judged": remaining,
        "already_done": already,
        **held.summary(),
        "prompt_tokens": counts.prompt_tokens,
        "shared_tokens": counts.shared_tokens,
        "generated_tokens": counts.generated_tokens,
        "padding": counts.padding,
        "programs_compiled": counts.programs,
        "compile_seconds": counts.compile_seconds,
        "seconds": judged,
        "complete": complete,
    }


def summary_of_complete(job: Job, records: int) -> dict[str, Any]:
    """The summary where nothing remained to be done: no tokens, no seconds.

    Raises:
      InputError: the output holds no judgments, or not as many as there are records.
    """
    held = Tally(judgments(job.output)).summary()
    found = sum(held[status] for status in verdicts.STATUSES)
    if found != records:
        raise InputError(
            f"{job.output}: holds {found} judgments, and {records} records are to be judged; choose another --output, or move "
            "it away"
        )
    return {
        "records": records,
        "judged": 0,
        "already_done": records,
        **held,
        "seconds": 0.0,
        "complete": True,
    }


def _todo(job: Job, shard: across_hosts.Shard) -> Iterator[tuple[tuple[int, Record], ...]]:
    """Windows of the records that this part has and that have no judgment yet."""
    numbered = enumerate(record for _, record in read_jsonl(job.input))
    own = itertools.islice(numbered, job.part, len(shard.done), job.parts)
    return windows((index, record) for index, record in own if not shard.done[index])


def _ahead(work: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    """`work` of each item in order. The next item is read and worked on in a thread while the caller uses the last."""

    def step() -> tuple[Any] | None:
        for item in items:
            return (work(item),)
        return None

    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        following = pool.submit(step)
        while (result := following.result()) is not None:
            following = pool.submit(step)
            yield result[0]
