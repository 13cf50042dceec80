"""What a user should know and need not change: one line on stderr, once."""

import functools
import sys


@functools.cache
def say_once(text: str) -> None:
    """Prints a notice on stderr, where this process has not printed it yet."""
    print(f"judgelm_jax: {' '.join(text.split())}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """As a person says it."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
