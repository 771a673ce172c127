"""The one exception a user of Eddy can cause; the command line prints its message and exits 1, without a stack trace."""


class EddyError(Exception):
    """One line: what was wrong, where, and what to do."""
