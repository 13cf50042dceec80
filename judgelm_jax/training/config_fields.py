"""The fields of a training config on the command line: what `--help` says of them, and what is wrong with an override.

Names, types and defaults are those of the dataclasses, meanings the comments beside their fields, and nothing is said twice.
"""

import dataclasses
import difflib
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Sequence

from absl import flags

from judgelm_jax.errors import InputError
from judgelm_jax.training_config import TrainConfig

_COMMENT = re.compile(r"^    (\w+): [^#]*?# (.*)$", re.MULTILINE)
_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


class ConfigFlags(flags.FlagValues):
    """Flags among which are `--config.SECTION.FIELD=VALUE`; a wrong one is named before the config is read."""

    def __call__(self, argv: Sequence[str], known_only: bool = False) -> list[str]:
        named = {argument.lstrip("-").partition("=")[0] for argument in argv[1:] if argument.startswith("-")}
        if "config" not in named and any(name.startswith("config.") for name in named):
            raise InputError("--config is missing; name a config whose fields are overridden, as configs/tiny.py")
        for argument in argv[1:]:
            _check(argument)
        return list(super().__call__(argv, known_only))


def help_lines() -> str:
    """A paragraph a field: its name, its meaning and its default."""
    lines = []
    for section, fields in _sections().items():
        meanings = dict(_COMMENT.findall(inspect.getsource(typing.get_type_hints(TrainConfig)[section])))
        for field in fields.values():
            default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
            shown = "" if default is None else f" (default: {str(default).lower() if isinstance(default, bool) else default})"
            text = f"--config.{section}.{field.name}: {meanings[field.name]}{shown}"
            lines.append(textwrap.fill(text, 110, initial_indent="  ", subsequent_indent="      "))
    return "\n".join(lines)


def overridden(flag_values: flags.FlagValues, section: str) -> list[str]:
    """The fields of a section that the command line sets."""
    prefix = f"config.{section}."
    return [name.removeprefix(prefix) for name in flag_values if name.startswith(prefix)]


def _sections() -> dict[str, dict[str, dataclasses.Field]]:
    hints = typing.get_type_hints(TrainConfig)
    return {section: {field.name: field for field in dataclasses.fields(kind)} for section, kind in hints.items()}


def _check(argument: str) -> None:
    """Raises an `InputError` where an argument overrides what is no field, or gives it a value of another type."""
    name, given, value = argument.lstrip("-").partition("=")
    if not argument.startswith("-") or not name.startswith("config."):
        return
    sections = _sections()
    section, _, field = name.removeprefix("config.").partition(".")
    if section not in sections:
        raise InputError(f"--{name}: the config has no {section!r}; {_suggest(section, sections)}")
    if not field:
        raise InputError(f"--{name}: is a section; set its fields ({', '.join(sections[section])})")
    if field not in sections[section]:
        raise InputError(f"--{name}: {section} has no field {field!r}; {_suggest(field, sections[section])}")
    kind = typing.get_type_hints(typing.get_type_hints(TrainConfig)[section])[field]
    if isinstance(kind, types.UnionType):  # with None
        kind = typing.get_args(kind)[0]
    if given and kind in _KINDS and not _reads(kind, value):
        raise InputError(f"--{name}={value}: must be {_KINDS[kind]}")


def _reads(kind: type, value: str) -> bool:
    if kind is bool:
        return value.lower() in ("true", "t", "1", "yes", "y", "false", "f", "0", "no", "n")
    try:
        kind(value)
    except ValueError:
        return False
    return True


def _suggest(name: str, known: dict) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
