"""How every command starts and ends: flags, `--help`, and exit code 2 with one line for what the user can mend."""

import errno
import inspect
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Sequence

from absl import flags

from judgelm_jax.errors import InputError

EXIT_OK = 0
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130


def run(main: Callable[[], None], flag_values: flags.FlagValues, name: str, argv: Sequence[str] | None = None) -> int:
    """Parses `argv` (default: the process's own) into `flag_values`, calls `main` and returns the exit code.

    Each command owns its `FlagValues`, so that importing two commands in one process cannot clash, and absl's exit codes
    (1 for a wrong flag) are replaced by ours: 0 success or `--help`, 2 something that the user can mend, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(argument in ("--help", "-help", "-h", "-?") for argument in arguments):
        print(help_text(main, flag_values, name))
        return EXIT_OK
    flag_values.unparse_flags()  # a second call in one process begins with the defaults again
    try:
        rest = flag_values([f"judgelm-{name}", *arguments])[1:]
        if rest:
            raise InputError(f"unexpected argument {rest[0]!r}; every setting is a flag, see --help")
    except flags.Error as error:
        return _fail(name, f"{' '.join(str(error).split())}; see --help")
    except InputError as error:
        return _fail(name, str(error))
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        return _fail(name, str(error))
    except BrokenPipeError:
        # The reader of stdout (`head`, say) left: nothing more to tell it, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        return _fail(name, _describe(error))
    except KeyboardInterrupt:
        return _fail(name, "interrupted", EXIT_INTERRUPTED)
    return EXIT_OK


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
