"""The one family of errors that the command line prints without a traceback."""


class SlmcError(Exception):
    """Something that the user can mend; the text names the thing, what was found, what is allowed, the next step."""

    exit_code = 2


class ConstraintsNotMet(SlmcError):
    """No candidate satisfies the constraints; the closest artifact has been written."""

    exit_code = 4


class NotAvailable(SlmcError):
    """The target or a part of the environment is missing."""

    exit_code = 5
