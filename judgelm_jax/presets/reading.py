"""A preset from its TOML file: how a judge is asked, and where and how it says its verdict."""

import dataclasses
import hashlib
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.verdicts import distributions

JUDGELM = "judgelm"
NAMES = tuple(
    sorted(entry.name.removesuffix(".toml") for entry in resources.files(__package__).iterdir() if entry.name.endswith(".toml"))
)

_FIELDS: dict[str, Any] = {
    "system": str,
    "template": (str, list),
    "chat_template": bool,
    "response_prefix": str,
    "verdict": str,
    "marker": str,
    "ending": str,
    "scale": str,
    "labels": dict,
    "reason_tokens": int,
}
_BRACES = re.compile(r"\{([^{}]*)\}")
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ANSWER = re.compile(r"answer([0-9]+)")
# Fields that have a name of their own in a template, where they are shown in each order and shortened; and what only the
# prompts of JudgeLM name.
_OTHER_NAME = {"question_body": "question"} | {f"answer{number}_body": f"answer{number}" for number in (1, 2)}
_NO_PLACEHOLDERS = ("answers", "count", "numbers")
_LARGEST = 1_000_000  # bytes of a file
_LONGEST_WORD = 100  # characters of a verdict, and of what ends it


@dataclasses.dataclass(frozen=True)
class Preset:
    """How a judge is asked, and where and how it says its verdict.

    `templates`: the prompt; the first is taken whose fields the record all has. Placeholders are `{question}`, `{answer1}`,
    `{answer2}`, `{reference}`, `{system}` and any text field of the record, such as `{rubric}`. With `chat_template` the prompt
    is the message of a user, behind `system`, in the conversation of the tokenizer's own chat template. The response is
    begun with `response_prefix`. The verdict is one of `words` and `ending`; it stands first, or behind `marker` after a
    reason of at most `reason_tokens` tokens. `winners`: which answer each word means (0: a tie); None: the words are scores,
    one for each answer. `answers`: how many are shown. `sha256`: of the file.
    """

    name: str
    templates: tuple[str, ...]
    words: tuple[str, ...]
    winners: tuple[int, ...] | None
    answers: int
    sha256: str
    system: str = ""
    chat_template: bool = False
    response_prefix: str = ""
    marker: str | None = None
    ending: str = "\n"
    reason_tokens: int = 512


def load_preset(name: str) -> Preset:
    """A preset by its name, or from a TOML file.

    Raises:
      InputError: there is no such preset, or the file is broken; the message names the file and the field.
    """
    if name in NAMES:
        return _read(name, name, (resources.files(__package__) / f"{name}.toml").read_bytes())
    path = Path(name)
    if path.suffix != ".toml":
        known = ", ".join((JUDGELM, *NAMES))
        raise InputError(f"--preset={name}: there is no such preset; the presets are {known}, or give the path of a .toml file")
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check --preset") from error
    if len(content) > _LARGEST:
        raise InputError(f"{path}: is larger than {_LARGEST} bytes; that is no preset")
    return _read(path.stem, str(path), content)


def _read(name: str, place: str, content: bytes) -> Preset:
    try:
        fields = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{place}: is no TOML ({' '.join(str(error).split())}); see the presets for examples") from error
    try:
        return _checked(name, fields, hashlib.sha256(content).hexdigest())
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def _checked(name: str, fields: Mapping[str, Any], sha256: str) -> Preset:
    for field, value in fields.items():
        if field not in _FIELDS:
            raise InputError(f"the field {field!r} is not known; the fields are {', '.join(_FIELDS)}")
        if not isinstance(value, _FIELDS[field]) or (isinstance(value, bool) and _FIELDS[field] is int):
            raise InputError(f"the field {field!r} is {value!r}, which has the wrong type")
    templates = _templates(fields)
    words, winners = _words(fields)
    ending = fields.get("ending", "\n")
    long = next((text for text in (*words, ending) if len(text) > _LONGEST_WORD), None)
    if long is not None:
        raise InputError(f"the verdict, or its 'ending', {long[:20]!r}… has more than {_LONGEST_WORD} characters; shorten it")
    longer = next((b for a in words for b in words if a != b and (b + ending).startswith(a + ending)), None)
    if longer is not None:
        raise InputError(f"the verdict {longer!r} begins as another one does; give an 'ending' that tells them apart")
    answers = _answers(templates)
    if winners is not None and answers != 2:
        raise InputError(f"'labels' name the better of two answers, and the template shows {answers}; give a 'scale'")
    return Preset(
        name=name,
        templates=templates,
        words=words,
        winners=winners,
        answers=answers,
        sha256=sha256,
        system=fields.get("system", ""),
        chat_template=fields.get("chat_template", False),
        response_prefix=fields.get("response_prefix", ""),
        marker=_marker(fields),
        ending=ending,
        reason_tokens=_reason_tokens(fields),
    )


def _templates(fields: Mapping[str, Any]) -> tuple[str, ...]:
    given = fields.get("template")
    templates = (given,) if isinstance(given, str) else tuple(given or ())
    if not templates or not all(isinstance(template, str) and template for template in templates):
        raise InputError("the field 'template' is missing; it is the text of the prompt, or a list of such texts")
    for template in templates:
        if set(_BRACES.sub("", template)) & set("{}"):
            raise InputError("the template has a brace that belongs to no placeholder; write {name} with one brace at each end")
        for inside in _BRACES.findall(template):
            if not _FIELD_NAME.fullmatch(inside):
                raise InputError(
                    f"the template has the placeholder {{{inside}}}; its name must be of small letters, digits and _, and "
                    "braces cannot stand for themselves"
                )
            if inside in _OTHER_NAME:
                raise InputError(f"the template has the placeholder {{{inside}}}; write {{{_OTHER_NAME[inside]}}}")
            if inside in _NO_PLACEHOLDERS:
                raise InputError(
                    f"the template has the placeholder {{{inside}}}, which presets do not have; write {{answer1}} and "
                    "{{answer2}}, or text"
                )
            if inside == "system" and (fields.get("chat_template") or not fields.get("system")):
                raise InputError("the template names {system}, which needs the field 'system' and chat_template = false")
        if not template.split("}")[-1].strip() and not fields.get("chat_template") and not fields.get("response_prefix"):
            raise InputError("the template ends with a placeholder; a text must follow, behind which the response begins")
    if set(fields.get("system", "")) & set("{}"):
        raise InputError("'system' holds braces, which would be read as a placeholder")
    if fields.get("system") and not fields.get("chat_template") and any("{system}" not in text for text in templates):
        raise InputError("'system' is shown nowhere; name {system} in each template, or set chat_template = true")
    return templates


def _answers(templates: tuple[str, ...]) -> int:
    counts = set()
    for template in templates:
        numbers = {int(match[1]) for name in _BRACES.findall(template) if (match := _ANSWER.fullmatch(name))}
        if numbers not in ({1}, {1, 2}):
            raise InputError("a template shows {answer1}, or {answer1} and {answer2}; no more, and no other")
        counts.add(len(numbers))
        if "question" not in _BRACES.findall(template):
            raise InputError("a template lacks {question}")
    if len(counts) > 1:
        raise InputError("some templates show one answer and some two; make two presets of them")
    return counts.pop()


def _words(fields: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    if ("scale" in fields) == ("labels" in fields):
        raise InputError("exactly one of 'scale' and 'labels' says what a verdict may be")
    if "scale" in fields:
        try:
            return distributions.grid(fields["scale"]), None
        except InputError as error:
            raise InputError(f"the field 'scale' is {fields['scale']!r}; {str(error).partition(': ')[2]}") from error
    labels = fields["labels"]
    meanings = [value for value in labels.values() if isinstance(value, int) and not isinstance(value, bool)]
    if len(meanings) < len(labels) or not {1, 2} <= set(meanings) <= {0, 1, 2}:
        raise InputError("'labels' give each word the winner that it means: 1, 2, or 0 for a tie; 1 and 2 have to be there")
    if not all(word.strip() == word and word and word.isprintable() for word in labels):
        raise InputError("a word of 'labels' is empty, or begins or ends with white space")
    return tuple(labels), tuple(labels.values())


def _marker(fields: Mapping[str, Any]) -> str | None:
    where = fields.get("verdict", "first_line")
    if where not in ("first_line", "after"):
        raise InputError(f"the field 'verdict' is {where!r}; it must be 'first_line' or 'after'")
    marker = fields.get("marker")
    if where == "after" and not (marker and marker.strip()):
        raise InputError("the verdict stands after a reason; 'marker' must say behind which text")
    if where == "first_line" and (marker is not None or "reason_tokens" in fields):
        raise InputError("'marker' and 'reason_tokens' go with verdict = \"after\" only")
    return marker


def _reason_tokens(fields: Mapping[str, Any]) -> int:
    count = fields.get("reason_tokens", 512)
    if not 1 <= count <= 100_000:
        raise InputError(f"'reason_tokens' is {count}; it must be from 1 to 100000")
    return count
