"""How every command starts and ends: flags, `--help`, `--version`, `--json`, and exit code 2 with one line for bad input."""

import contextlib
import errno
import inspect
import json
import logging
import math
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from absl import flags

import judgelm_jax
from judgelm_jax.errors import InputError
from judgelm_jax.records.output_files import check_output, write_atomically
from judgelm_jax.storage import stored_flags

EXIT_OK = 0
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130
_INTERRUPTED = "interrupted; run the same command with --resume to go on"


def run(main: Callable[[], None], flag_values: flags.FlagValues, name: str, argv: Sequence[str] | None = None) -> int:
    """Parses `argv` (default: the process's own) into `flag_values`, calls `main` and returns the exit code.

    Each command owns its `FlagValues`, so that importing two commands in one process cannot clash, and absl's exit codes
    (1 for a wrong flag) are replaced by ours: 0 success or `--help`, 2 something that the user can fix, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    stdout, sys.stdout = sys.stdout, _Stdout(sys.stdout)
    try:
        try:
            code = _run(main, flag_values, name, arguments)
        except KeyboardInterrupt:
            code = _fail(name, _INTERRUPTED if "resume" in flag_values else "interrupted", EXIT_INTERRUPTED)
        sys.stdout.flush()
        failure = sys.stdout.failure
    finally:
        sys.stdout = stdout
    if failure is None:
        return code
    # What remains in the buffer could not be written at exit either.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
    if code == EXIT_OK and not isinstance(failure, BrokenPipeError):
        return _fail(name, f"standard output: {failure.strerror or failure}; the work itself is done")
    return code


def check_json(
    path: str | None, overwrite: bool, others: Sequence[Path] = (), resumed: Mapping[str, Any] | None = None
) -> None:
    """Refuses, before any work, a `--json` that exists (unless `overwrite`), cannot be written, or is one of the `others`.

    A command with `--resume` passes in `resumed` what tells its run from others, as it stands in the summary (`output`, …):
    the summary of that same run may be replaced, so that a command can be given again as it is. None: not resumed.

    Raises:
      InputError: says what is wrong and what to do.
    """
    if path is None:
        return
    file = Path(path)
    check_output(file, overwrite or (resumed is not None and _is_summary_of(file, resumed)), others)


def write_json(path: str | None, summary: Mapping[str, Any]) -> None:
    """Writes the summary of a command to its `--json`, if there is one. NaN and infinities become null, which JSON has."""
    if path is None:
        return
    with write_atomically(Path(path)) as file:
        file.write(stored_flags.shown(json.dumps(_finite(summary), indent=2, allow_nan=False)) + "\n")


def _is_summary_of(file: Path, run: Mapping[str, Any]) -> bool:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    as_written = {name: stored_flags.shown(value) if isinstance(value, str) else value for name, value in run.items()}
    return isinstance(found, dict) and all(name in found and found[name] == as_written[name] for name in run)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Stdout:
    """Standard output that does not end the work when nobody reads it (`| head`, `>&-`) or its disk is full."""

    def __init__(self, stream: TextIO | None):
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        return self._try(lambda stream: stream.write(_encodable(stored_flags.shown(text), stream.encoding)))

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def _try(self, action: Callable[[TextIO], Any]) -> Any:
        if self._stream is None or self.failure is not None:
            return 0
        try:
            return action(self._stream)
        except OSError as error:
            self.failure = error
            return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _encodable(text: str, encoding: str | None) -> str:
    """The text with escapes for what the terminal cannot show, as lone surrogates in the name of a file."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _run(main: Callable[[], None], flag_values: flags.FlagValues, name: str, arguments: Sequence[str]) -> int:
    if any(argument in ("--help", "-help", "-h", "-?") for argument in arguments):
        print(help_text(main, flag_values, name))
        return EXIT_OK
    if any(argument in ("--version", "-version") for argument in arguments):
        print(f"judgelm-{name} {judgelm_jax.__version__}")
        return EXIT_OK
    try:
        flag_values.unparse_flags()  # an earlier call in this process leaves nothing behind
        with _process_arguments([f"judgelm-{name}", *arguments], flag_values) as argv:
            rest = flag_values(argv)[1:]
        if rest:
            raise InputError(f"unexpected argument {rest[0]!r}; every setting is a flag, see --help")
        _refuse_repeated(flag_values)
    except InputError as error:
        return _fail(name, str(error))
    except OSError as error:  # a file that a flag names and that is read at once
        return _fail(name, _describe(error))
    except Exception as error:  # a config is a program, in which anything may fail
        if in_config := _in_config(error, arguments):
            return _fail(name, in_config)
        if not isinstance(error, (flags.Error, LookupError, AttributeError, TypeError, ValueError, NameError, ImportError)):
            raise
        return _fail(name, f"{_missing_flags(error) or ' '.join(str(error).split())}; see --help")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        with stored_flags.at_hand(name, flag_values):
            main()
    except InputError as error:
        return _fail(name, str(error), error.exit_code)
    except OSError as error:
        return _fail(name, _describe(error))
    return EXIT_OK


def _refuse_repeated(flag_values: flags.FlagValues) -> None:
    """Without this the last of two values would win silently."""
    for name in sorted(flag_values):
        flag = flag_values[name]
        if flag.present > 1 and not isinstance(flag, flags.MultiFlag):
            raise InputError(f"--{name} is given {flag.present} times; give it once")


def _missing_flags(error: Exception) -> str:
    """Names the required flags that are missing, where that is what absl says; else nothing."""
    missing = [f"--{name}" for name in re.findall(r"Flag --(\S+) must have a value other than None", str(error))]
    if not missing:
        return ""
    return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"


def _in_config(error: Exception, arguments: Sequence[str]) -> str:
    """Names the line of the `--config` that is wrong, where it is its Python that fails; else nothing."""
    given = re.search(r"^--?config[=\n](.+)$", "\n".join(arguments), re.MULTILINE)
    if given is None:
        return ""
    config = given[1]
    if isinstance(error, AttributeError) and "no attribute 'get_config'" in str(error):
        return f"{config}: has no function get_config; define one that returns the config, as the files of configs/ do"
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    lines = [line for file, line in places if Path(file).absolute() == Path(config).absolute()]
    if not lines:
        return ""
    said = error.msg if isinstance(error, SyntaxError) else error
    return f"{config}:{lines[-1]}: {type(error).__name__}: {' '.join(str(said).split())}; fix this config"


@contextlib.contextmanager
def _process_arguments(argv: list[str], flag_values: flags.FlagValues) -> Iterator[list[str]]:
    """Puts `argv` where `ml_collections.config_flags` looks for fields that are overridden, and forgets those of before."""
    own, sys.argv = sys.argv, argv
    for override in [name for name in flag_values if "." in name]:
        delattr(flag_values, override)
    try:
        yield argv
    finally:
        sys.argv = own


def help_text(main: Callable[[], None], flag_values: flags.FlagValues, name: str) -> str:
    """The command's own docstring, then every flag with its default."""
    module = sys.modules[main.__module__]
    about = inspect.cleandoc(module.__doc__ or "")
    return f"judgelm-{name}: {about}\n\nflags:\n{_flag_lines(flag_values)}"


def _flag_lines(flag_values: flags.FlagValues) -> str:
    lines = []
    for name in sorted(flag_values):
        flag = flag_values[name]
        default = ",".join(map(str, flag.default)) if isinstance(flag.default, list) else flag.default
        shown = "" if default in (None, "") else f" (default: {default})"
        about = " ".join(flag.help.split())
        lines.append(textwrap.fill(f"--{name}: {about}{shown}", 110, initial_indent="  ", subsequent_indent="      "))
    return "\n".join(lines)


def describe(error: BaseException) -> str:
    """The line that stands for an error of a command that may be one of several processes, which all have --resume."""
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    return _describe(error) if isinstance(error, OSError) else str(error) or type(error).__name__


def _describe(error: OSError) -> str:
    place = error.filename if error.filename is not None else "a file"
    if error.errno == errno.ENOSPC:
        return f"{place}: the disk is full; free space and run again, what was written before is kept"
    reason = error.strerror or str(error)
    return f"{place}: {reason}; check the path and its permissions"


def _fail(name: str, message: str, code: int = EXIT_INPUT) -> int:
    one_line = stored_flags.shown(" ".join(message.split()))
    print(f"judgelm-{name}: {one_line}", file=sys.stderr, flush=True)
    return code
