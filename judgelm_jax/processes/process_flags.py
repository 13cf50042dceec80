"""The flags by which a command learns that it is one of several processes. Imports no JAX."""

import dataclasses

from absl import flags

from judgelm_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Asked:
    """How this process joins the others.

    Attributes:
      command: its name.
      coordinator, processes, process: HOST:PORT of process 0, how many there are, which this is; None: the cluster says.
      seconds: how long the processes wait for each other.
    """

    command: str
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    seconds: float = 120.0


@dataclasses.dataclass(frozen=True)
class ProcessFlags:
    """The flags of one command."""

    distributed: flags.FlagHolder[bool]
    coordinator: flags.FlagHolder[str | None]
    processes: flags.FlagHolder[int | None]
    process: flags.FlagHolder[int | None]
    join_timeout: flags.FlagHolder[int]

    def check(self) -> None:
        """Raises an `InputError` where they do not go together."""
        by_hand = [self.coordinator.value, self.processes.value, self.process.value]
        if None in by_hand and by_hand != [None] * 3:
            raise InputError("--coordinator, --processes and --process go together: give all three or none")
        if self.distributed.value and None not in by_hand:
            raise InputError("--distributed asks the cluster who is who, and --coordinator says it by hand; give one of them")

    @property
    def several(self) -> bool:
        """Whether this is one of several processes."""
        return self.distributed.value or self.coordinator.value is not None

    def asked(self, command: str) -> Asked | None:
        """What `processes.together` takes."""
        if not self.several:
            return None
        return Asked(command, self.coordinator.value, self.processes.value, self.process.value, self.join_timeout.value)


def define(flag_values: flags.FlagValues) -> ProcessFlags:
    """Defines the flags."""
    return ProcessFlags(
        flags.DEFINE_boolean("distributed", False, "one of several processes; the cluster says which", flag_values=flag_values),
        flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, for several processes", flag_values=flag_values),
        flags.DEFINE_integer("processes", None, "how many there are", lower_bound=1, flag_values=flag_values),
        flags.DEFINE_integer("process", None, "which of them this is, from 0", lower_bound=0, flag_values=flag_values),
        flags.DEFINE_integer(
            "join_timeout", 120, "seconds that the processes wait for each other", lower_bound=1, flag_values=flag_values
        ),
    )
