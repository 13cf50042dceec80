"""The errors that a user can fix."""


class InputError(Exception):
    """A wrong flag, path, file or record.

    The message is one line that names the place (file and line where there is one) and says what to do. Commands print it
    on stderr and end with `exit_code`; a library user catches it.
    """

    exit_code = 2


class PeerError(InputError):
    """Another process of the same run was lost or did not come."""

    exit_code = 3
