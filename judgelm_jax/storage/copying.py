"""Keeping an object store up to date with what a run writes here."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from judgelm_jax.errors import InputError


@contextlib.contextmanager
def kept_up_to_date(copy: Callable[[], None], seconds: float, taken: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Calls `copy` every so many seconds, in a thread, while the block runs, and once behind it.

    A store that does not answer is asked again the next time. `taken` is called, in the thread, when another process writes
    there; nothing is copied any more then.

    Raises:
      InputError: behind the block: another process writes there, or the last copy failed.
    """
    ended = threading.Event()
    others: list[InputError] = []

    def keep_copying() -> None:
        while not ended.wait(seconds):
            try:
                copy()
            except InputError as error:
                if "another process" in str(error):
                    others.append(error)
                    taken()
                    return

    thread = threading.Thread(target=keep_copying, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if others:
            raise others[0]
        copy()
