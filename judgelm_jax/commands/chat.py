"""asks a judge about its judgment, in a terminal.

Judges one record, of a file or typed in, prints the verdict, and answers further questions, each with all that was said before.
An empty line or the end of the input ends it.

  judgelm-chat --model=judge --input=records.jsonl --id=17
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from judgelm_jax.commands.command_line import check_json, run, write_json
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.errors import InputError
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.kinds import Kind
from judgelm_jax.presets import kind_of
from judgelm_jax.records.json_lines import Record, plain_text, read_jsonl
from judgelm_jax.records.records import check_records, identity, reference_of

FLAGS = flags.FlagValues()

_DEFAULTS = JudgeConfig()
_END = "."  # ends a text that is typed in
_QUESTION, _FIRST = ("question_body", "Question"), ("answer1_body", "Answer 1")
_TYPED = {
    "pair": (_QUESTION, _FIRST, ("answer2_body", "Answer 2")),
    "single": (_QUESTION, ("answer1_body", "Answer"), ("reference", "Reference answer")),
}
# What a terminal would obey instead of show.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

MODEL = flags.DEFINE_string("model", None, "as in judgelm-judge", required=True, flag_values=FLAGS)
BASE = flags.DEFINE_string("base", None, "as in judgelm-judge", flag_values=FLAGS)
INPUT = flags.DEFINE_string("input", None, "judge records, JSON Lines; typed in when not given", flag_values=FLAGS)
ID = flags.DEFINE_string("id", None, "of the record of --input; the first when not given", flag_values=FLAGS)
KIND = flags.DEFINE_enum("kind", _DEFAULTS.kind, JudgeConfig.KINDS, "as in judgelm-judge.", flag_values=FLAGS)
PRESET = flags.DEFINE_string("preset", _DEFAULTS.preset, "as in judgelm-judge", flag_values=FLAGS)
REFERENCE = flags.DEFINE_enum(
    "reference", _DEFAULTS.reference, JudgeConfig.REFERENCES, "as in judgelm-judge.", flag_values=FLAGS
)
TEMPERATURE = flags.DEFINE_float("temperature", _DEFAULTS.temperature, "0: greedy; above: sampling", flag_values=FLAGS)
SEED = flags.DEFINE_integer("seed", _DEFAULTS.seed, "of sampling", flag_values=FLAGS)
MAX_NEW_TOKENS = flags.DEFINE_integer(
    "max_new_tokens", _DEFAULTS.max_new_tokens, "the longest judgment or answer", flag_values=FLAGS
)
MESH = flags.DEFINE_string("mesh", "data:-1", "as in judgelm-judge", flag_values=FLAGS)
DTYPE = flags.DEFINE_enum("dtype", _DEFAULTS.dtype, JudgeConfig.DTYPES, "of the computation.", flag_values=FLAGS)
CONTEXT = flags.DEFINE_integer("context", None, "as in judgelm-judge", lower_bound=16, flag_values=FLAGS)
JSON = flags.DEFINE_string("json", None, "also write what was said to this file, as JSON", flag_values=FLAGS)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace the file of --json if it exists", flag_values=FLAGS)


def main() -> None:
    settings = JudgeConfig(
        kind=KIND.value,
        preset=PRESET.value,
        reference=REFERENCE.value,
        mode="explain",
        temperature=TEMPERATURE.value,
        seed=SEED.value,
        max_new_tokens=MAX_NEW_TOKENS.value,
        dtype=DTYPE.value,
        keep_as="input_",
    )
    MeshConfig.parse(MESH.value)
    check_json(JSON.value, OVERWRITE.value, [Path(INPUT.value)] if INPUT.value else [])
    if ID.value is not None and INPUT.value is None:
        raise InputError("--id names a record of --input; give that, too")
    kind = kind_of(KIND.value, PRESET.value)
    record = _typed_in(kind) if INPUT.value is None else _record(Path(INPUT.value), kind)

    from judgelm_jax.devices.runtime import enable_compilation_cache, require_devices
    from judgelm_jax.judging.judge import Judge

    require_devices()
    enable_compilation_cache()
    judge = Judge.load(MODEL.value, MESH.value, settings, base=BASE.value, context=CONTEXT.value)
    (judgment,) = judge.judge([record])
    print(f"\n{_shown(judgment.row['pred_text'])}\n", flush=True)
    turns: list[dict[str, str]] = []
    said: dict[str, Any] = {"judgment": judgment.row, "turns": turns}
    if judgment.status == "overflow":
        write_json(JSON.value, said)
        raise InputError(f"the record {identity(record)!r} does not fit the context: there is no judgment to ask about")
    chat = judge.chat(judgment)
    try:
        for question in _questions():
            turns.append({"question": question, "answer": ""})
            for piece in chat.ask(question):
                print(_shown(piece), end="", flush=True)
                turns[-1]["answer"] += piece
            print("\n", flush=True)
    finally:
        write_json(JSON.value, said)


def entry() -> int:
    """The console command."""
    return run(main, FLAGS, "chat")


def _record(path: Path, kind: Kind) -> Record:
    def check_prompt(record: Record) -> None:
        kind.cases_of(record, reference_of(record), REFERENCE.value)

    check_records(path, answers=kind.answers, structure=kind.structure, also=check_prompt)
    for _, record in read_jsonl(path):
        if ID.value is None or plain_text(identity(record)) == ID.value:
            return record
    raise InputError(f"{path}: no record has the id {ID.value!r}" if ID.value is not None else f"{path}: holds no record")


def _typed_in(kind: Kind) -> Record:
    if kind.name not in _TYPED:
        raise InputError(f"records of --kind={kind.name} cannot be typed in; give --input")
    texts = {}
    for field, name in _TYPED[kind.name]:
        _say(f"{name} (end with a line that holds a {_END!r} only):")
        lines = []
        while (line := _line()) is not None and line != _END:
            lines.append(line)
        texts[field] = "\n".join(lines)
    return {"question_id": "typed", **texts}


def _questions() -> Iterator[str]:
    while True:
        _say("> ", end="")
        line = _line()
        if not line:
            return
        yield line


def _line() -> str | None:
    """A line of the input without its end; None behind the last."""
    line = sys.stdin.readline()
    return line.rstrip("\r\n") if line else None


def _shown(text: str) -> str:
    return _CONTROLS.sub("\ufffd", text)


def _say(text: str, end: str = "\n") -> None:
    """A prompt, where somebody can read it."""
    if sys.stdin.isatty():
        print(text, end=end, file=sys.stderr, flush=True)
