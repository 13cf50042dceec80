"""How the processes of a run find each other."""

import ipaddress
import os
import socket
import sys
import time
import warnings
from typing import Any

import jax
from jax._src.clusters import ClusterEnv

from judgelm_jax.errors import InputError, PeerError
from judgelm_jax.processes import agreement, participants, store
from judgelm_jax.processes.connections import Channel, carry, local_address, receive
from judgelm_jax.processes.process_flags import Asked
from judgelm_jax.processes.watching import Watch

# JAX's own watching aborts a process with a native stack trace; ours must always be quicker.
_NEVER = 10**6
_TELL_SECONDS = 10.0


def join(asked: Asked, watch: Watch) -> None:
    """Joins the processes of one run before JAX starts, and lets `watch` begin.

    Raises:
      InputError: an argument is wrong, no cluster is found, or the processes disagree on how many they are, on the versions of
        packages, or on where process 0 is.
      PeerError: nothing answers at the coordinator's address. Where others do not come, `watch` ends the process.
    """
    coordinator, processes, process, devices = _who_is_who(asked)
    if process >= processes:
        raise InputError(f"--process={process}: must be below --processes={processes}; count from 0")
    host, port = _address(coordinator)
    facts = {"host": store.host(), "coordinator": coordinator, "loopback": _is_loopback(host)}
    address, path = local_address()
    if process == 0:
        watch.begin(0, processes, facts, None)
        try:
            receive(port, path, watch.attend)
        except OSError as error:
            raise InputError(
                f"--coordinator={coordinator}: process 0 cannot listen there ({error.strerror}); choose another port"
            ) from error
    else:
        channel = Channel(_reach(coordinator, host, port, asked.seconds, asked.command))
        carry(path, host, port)
        watch.begin(process, processes, facts, channel)
    watch.wait_for_all()
    _refuse_loopback(watch.here)
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM; see `stop`
    try:
        jax.distributed.initialize(
            address,
            processes,
            process,
            devices,
            initialization_timeout=int(asked.seconds) + 60,
            heartbeat_timeout_seconds=_NEVER,
            coordinator_bind_address=address,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"JAX does not bring the processes together ({reason}); look at the output of each") from error
    agreement.compare("the versions of packages", participants.versions())


def _who_is_who(asked: Asked) -> tuple[str, int, int, Any]:
    """The coordinator's address, how many processes there are, which this is, and the devices that it takes (None: all)."""
    given = (asked.coordinator, asked.processes, asked.process)
    if None not in given:
        assert asked.coordinator is not None
        assert asked.processes is not None
        assert asked.process is not None
        return asked.coordinator, asked.processes, asked.process, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a package is missing, which is said below
            found = ClusterEnv.auto_detect_unset_distributed_params(
                os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None, None, None, int(asked.seconds)
            )
    except Exception as error:  # environment variables that do not fit, a service that does not answer
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"--distributed: the cluster does not say who is who ({reason}); give --coordinator, --processes and --process"
        ) from error
    coordinator, processes, process, devices = found
    if coordinator is None or processes is None or process is None:
        kubernetes = "KUBERNETES_SERVICE_HOST" in os.environ
        missing = "in Kubernetes pip install 'jax[k8s]', which asks it, or " if kubernetes else ""
        raise InputError(
            f"--distributed: no cluster is found (Slurm, Open MPI, Kubernetes, Cloud TPU); {missing}give --coordinator, "
            "--processes and --process"
        )
    return coordinator, processes, process, devices


def _address(coordinator: str) -> tuple[str, int]:
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise InputError(f"--coordinator={coordinator}: must be HOST:PORT of process 0, as 10.0.0.1:1234")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith("localhost.")


def _refuse_loopback(here: dict[int, dict[str, Any]]) -> None:
    """Raises where an address that means a host itself was given in a run on several: which others can reach process 0 is
    chance then."""
    hosts = {facts["host"] for facts in here.values()}
    wrong = [number for number in sorted(here) if here[number]["loopback"]]
    if len(hosts) > 1 and wrong:
        facts = here[wrong[0]]
        raise InputError(
            f"--coordinator={facts['coordinator']} in process {wrong[0]} on {facts['host']}: means that host itself, and the "
            f"processes are on {len(hosts)} hosts ({', '.join(sorted(hosts)[:3])}); give the address of process 0 on their "
            "network"
        )


def _reach(coordinator: str, host: str, port: int, seconds: float, command: str) -> socket.socket:
    """A connection to process 0, once it listens."""
    begun = told = time.monotonic()
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=5)
            connection.settimeout(None)
            return connection
        except (OSError, UnicodeError) as error:
            now, reason = time.monotonic(), getattr(error, "strerror", None) or str(error)
            if now - begun > seconds:
                itself = f", which means this host, {store.host()}, itself" if _is_loopback(host) else ""
                raise PeerError(
                    f"--coordinator={coordinator}: process 0 does not answer there{itself} ({reason}, after {seconds:.0f} s); "
                    "start it, or give its address"
                ) from error
        if now - told > _TELL_SECONDS:
            told = now
            line = f"waiting for process 0 at {coordinator} ({reason}; {now - begun:.0f} s of {seconds:.0f})"
            print(f"judgelm-{command}: {line}", file=sys.stderr, flush=True)
        time.sleep(0.5)
