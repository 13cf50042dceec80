"""The one error that a user can mend."""


class InputError(Exception):
    """A wrong flag, path, file or record.

    The message is one line that names the place (file and line where there is one) and says what to do. Commands print it
    on stderr and end with exit code 2; a library user catches it.
    """
