"""What a user should know and need not change: one line on stderr, once."""

import functools
import sys


@functools.cache
def say_once(text: str) -> None:
    """Prints a notice on stderr, where this process has not printed it yet."""
    print(f"judgelm_jax: {' '.join(text.split())}", file=sys.stderr, flush=True)
