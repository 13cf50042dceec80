"""How every command starts and ends: flags, `--help`, and exit code 2 with one line for what the user can mend."""

import contextlib
import errno
import inspect
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from absl import flags

from judgelm_jax.errors import InputError

EXIT_OK = 0
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143  # 128 + SIGTERM, as a shell says


def run(main: Callable[[], None], flag_values: flags.FlagValues, name: str, argv: Sequence[str] | None = None) -> int:
    """Parses `argv` (default: the process's own) into `flag_values`, calls `main` and returns the exit code.

    Each command owns its `FlagValues`, so that importing two commands in one process cannot clash, and absl's exit codes
    (1 for a wrong flag) are replaced by ours: 0 success or `--help`, 2 something that the user can mend, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    stdout, sys.stdout = sys.stdout, _Stdout(sys.stdout)
    try:
        code = _run(main, flag_values, name, arguments)
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


class _Stdout:
    """Standard output that does not end the work when nobody reads it (`| head`, `>&-`) or its disk is full."""

    def __init__(self, stream: TextIO | None):
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        return self._try(lambda stream: stream.write(text))

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


def _run(main: Callable[[], None], flag_values: flags.FlagValues, name: str, arguments: Sequence[str]) -> int:
    if any(argument in ("--help", "-help", "-h", "-?") for argument in arguments):
        print(help_text(main, flag_values, name))
        return EXIT_OK
    try:
        flag_values.unparse_flags()  # an earlier call in this process leaves nothing behind
        with _process_arguments([f"judgelm-{name}", *arguments], flag_values) as argv:
            rest = flag_values(argv)[1:]
        if rest:
            raise InputError(f"unexpected argument {rest[0]!r}; every setting is a flag, see --help")
    except InputError as error:
        return _fail(name, str(error))
    except OSError as error:  # a file that a flag names and that is read at once
        return _fail(name, _describe(error))
    except (flags.Error, LookupError, AttributeError, TypeError, ValueError, SyntaxError, NameError, ImportError) as error:
        return _fail(name, f"{' '.join(str(error).split())}; see --help")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        main()
    except InputError as error:
        return _fail(name, str(error), error.exit_code)
    except OSError as error:
        return _fail(name, _describe(error))
    except KeyboardInterrupt:
        return _fail(name, "interrupted", EXIT_INTERRUPTED)
    return EXIT_OK


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
        lines.append(textwrap.fill(f"--{name}: {flag.help}{shown}", 110, initial_indent="  ", subsequent_indent="      "))
    return "\n".join(lines)


def describe(error: BaseException) -> str:
    """The line that stands for an error."""
    return _describe(error) if isinstance(error, OSError) else str(error) or type(error).__name__


def _describe(error: OSError) -> str:
    place = error.filename if error.filename is not None else "a file"
    if error.errno == errno.ENOSPC:
        return f"{place}: the disk is full; free space and run again, what was written before is kept"
    reason = error.strerror or str(error)
    return f"{place}: {reason}; check the path and its permissions"


def _fail(name: str, message: str, code: int = EXIT_INPUT) -> int:
    one_line = " ".join(message.split())
    print(f"judgelm-{name}: {one_line}", file=sys.stderr, flush=True)
    return code
