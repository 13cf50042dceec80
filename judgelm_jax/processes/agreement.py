"""Before processes compute together they compare what they are about to compute."""

import json
from collections.abc import Mapping
from typing import Any

import jax

from judgelm_jax.errors import InputError, PeerError
from judgelm_jax.processes import store

_SECONDS = 1800.0  # one may read its files much slower than another
_SHOWN = 3


def compare(what: str, facts: Mapping[str, Any]) -> None:
    """Returns in all processes when each has the same `facts` (JSON values by name) as process 0.

    Raises:
      InputError: names the facts that differ, and this process with its host.
      PeerError: another process did not come to this point.
    """
    if not store.are_joined():
        return
    own, key = store.own(), f"compare/{what}"
    try:
        if own == 0:
            store.put(key, json.dumps({"host": store.host(), "facts": facts}))
        told = json.loads(store.wait(key, _SECONDS))
        first = told["facts"]
        # As JSON gives them back: tuples become lists.
        here = json.loads(json.dumps(facts))
        different = [name for name in {**here, **first} if here.get(name, "unknown") != first.get(name, "unknown")]
        if different:
            said = [
                f"{name} is {_value(here, name)} in process {own} on {store.host()} and {_value(first, name)} in process 0 on "
                f"{told['host']}"
                for name in different
            ]
            more = f", and {len(different) - _SHOWN} more differ" if len(different) > _SHOWN else ""
            raise InputError(f"the processes differ in {what}: {', '.join(said[:_SHOWN])}{more}; give all of them the same")
        store.barrier(key, _SECONDS)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise PeerError(f"another process did not come to compare {what} ({reason}); look at its output") from error


def _value(facts: Mapping[str, Any], name: str) -> str:
    text = str(facts.get(name, "unknown"))
    return text if len(text) <= 70 else text[:67] + "..."
