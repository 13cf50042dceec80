"""Messages as the ids that a chat model was trained on, by the template that comes with its tokenizer.

A template is a program of Jinja from a stranger, run in Jinja's sandbox; what messages say is data. So it renders marks in
place of the texts, and control tokens are looked for in what it wrote itself, never in a message: `<|im_end|>` in an answer is
ten ordinary characters, in `<|im_` + `end|>` of template and answer together, too.
"""

import dataclasses
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

from judgelm_jax.errors import InputError
from judgelm_jax.records.json_object import read_json_object
from judgelm_jax.tokens.tokenization import Tokenizer
from judgelm_jax.tokens.tokenizer_files import CONFIG_FILE, read_tokenizer_files

TEMPLATE_FILE = "chat_template.jinja"
ROLES = ("system", "user", "assistant")

_VARIABLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LONGEST = 1_000_000  # characters of a template, and of what it writes beside the texts of messages


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """A template, the tokenizer that it belongs to, and what it may ask for beside the messages."""

    path: Path
    tokenizer: Tokenizer
    program: jinja2.Template
    variables: Mapping[str, str]


def load_chat_template(folder: Path, tokenizer: Tokenizer) -> ChatTemplate:
    """The chat template of a tokenizer's folder: `chat_template.jinja`, else the one in `tokenizer_config.json`; of several
    the one named `default`.

    Raises:
      InputError: there is none, or it is broken.
    """
    path, source = _source(folder)
    if len(source) > _LONGEST:
        raise InputError(f"{path}: its chat template has {len(source)} characters; it cannot be used")
    try:
        program = _environment().from_string(source)
    except (jinja2.TemplateError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}: its chat template is broken ({_reason(error)}); fetch the tokenizer files again") from error
    files, names = read_tokenizer_files(folder), {i: name for name, i in tokenizer.control_names.items()}
    known = {"bos_token": tokenizer.beginning, "eos_token": next(iter(tokenizer.eos_ids), None)}
    variables = {name: names[i] for name, i in known.items() if i in names}
    for name in _VARIABLES:
        named = files.named(name)
        if named is not None and isinstance(named[1], str):
            variables[name] = named[1]
    return ChatTemplate(path, tokenizer, program, variables)


def chat_ids(template: ChatTemplate, messages: Sequence[Mapping[str, str]], response: str = "") -> list[int]:
    """The ids of a conversation up to the beginning of the assistant's next message, and of the text `response` behind it.

    They are those of `apply_chat_template(messages, add_generation_prompt=True)` of `transformers`, but that no text of a
    message becomes a control token, and that a template is told no date: what it gives must not change from day to day.

    Args:
      messages: each with `role`, one of `ROLES`, and `content`.

    Raises:
      InputError: the template refuses these roles or their order, leaves a message out, or does not end.
      ValueError: a role is none of `ROLES`.
    """
    for message in messages:
        if message["role"] not in ROLES:
            raise ValueError(f"unknown role {message['role']!r}; roles are {', '.join(ROLES)}")
    key = secrets.token_hex(8)  # no text of a message can hold it
    texts: list[str] = []
    marked = []
    for message in messages:
        content = message["content"]
        text = content.strip()
        # White space stays at its place: templates cut it off, or look for it.
        outside = content[: len(content) - len(content.lstrip())], content[len(content.rstrip()) :]
        marked.append({"role": message["role"], "content": f"{key}:{len(texts)};".join(outside) if text else content})
        texts += [text] if text else []
    written = re.split(rf"{key}:(\d+);", _rendered(template, marked))  # what the template wrote, a number, ...
    missing = set(range(len(texts))) - {int(number) for number in written[1::2]}
    if missing or any(key in part for part in written):
        raise InputError(f"{template.path}: the chat template leaves out or changes the text of a message; it cannot be used")
    parts: list[str | int] = []
    for index, part in enumerate(written):
        parts += [texts[int(part)]] if index % 2 else _with_control_tokens(part, template.tokenizer)
    return template.tokenizer.encode_parts([*parts, response])


def takes_system(template: ChatTemplate) -> bool:
    """Whether a conversation may begin with a message of the role `system`."""
    try:
        chat_ids(template, [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])
    except InputError:
        return False
    return True


def _source(folder: Path) -> tuple[Path, str]:
    path = folder / TEMPLATE_FILE
    if path.is_file():
        try:
            return path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is not UTF-8; fetch the tokenizer files again") from error
    path = folder / CONFIG_FILE
    found = read_json_object(path).get("chat_template") if path.is_file() else None
    if isinstance(found, list):
        named = {entry["name"]: entry.get("template") for entry in found if isinstance(entry, dict) and "name" in entry}
        found = named.get("default")
    if not isinstance(found, str):
        raise InputError(
            f"{folder}: its tokenizer has no chat template ({TEMPLATE_FILE}, or chat_template in {CONFIG_FILE}); copy it "
            "there, or take a preset that needs none"
        )
    return path, found


def _rendered(template: ChatTemplate, messages: list[dict[str, str]]) -> str:
    pieces, length = [], 0
    try:
        for piece in template.program.generate(messages=messages, add_generation_prompt=True, **template.variables):
            length += len(piece)
            if length > _LONGEST:
                raise jinja2.TemplateError(f"it writes more than {_LONGEST} characters")
            pieces.append(piece)
    except Exception as error:  # whatever the program of a stranger raises
        today = "; it asks for the date, which would change judgments from day to day" if "strftime_now" in str(error) else ""
        raise InputError(
            f"{template.path}: the chat template does not take these messages ({_reason(error)}{today}); choose another preset"
        ) from error
    return "".join(pieces)


def _with_control_tokens(text: str, tokenizer: Tokenizer) -> list[str | int]:
    """Text that a template wrote, with ids in place of the names of control tokens; of two at one place the longer."""
    names = sorted(tokenizer.control_names, key=len, reverse=True)
    if not names:
        return [text]
    pieces = re.split("(" + "|".join(map(re.escape, names)) + ")", text)
    return [tokenizer.control_names[piece] if index % 2 else piece for index, piece in enumerate(pieces)]


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox, without the products that fill the memory in one step."""

    intercepted_binops = frozenset(("*", "**"))

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not all(isinstance(x, int | float) for x in (left, right)):
            raise jinja2.sandbox.SecurityError(f"{operator} of these is not allowed")
        return super().call_binop(context, operator, left, right)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`: where a trainer finds the assistant's words; the same text without."""

    tags = frozenset(("generation",))  # type: ignore[assignment]

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> jinja2.Environment:
    """As templates are written for: `transformers` has the same settings and names, and a date."""
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = raise_exception
    return environment
