"""What is printed as one line, never as a traceback."""


class UserError(Exception):
    """A mistake in a command, a configuration or a file that the user can correct.

    The message names the value, the rule and the fix in one line; the command line prints it
    as ``error: ...`` and ends with exit code 2 before anything is written.
    """


class NonFinite(Exception):
    """A metric of the training step became NaN or infinite; the batch is saved for replay."""
