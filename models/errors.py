"""The exception for what a user can cause: the command line prints its one line and exits 1."""


class EddyError(Exception):
    """One line: what was wrong, where, and what to do."""


class UnfitModel(EddyError):
    """A model that nobody should use, which no repetition mends: its numbers are none, or it has seen what it
    is to be judged on.
    """


class WrongOption(EddyError):
    """What the user has chosen cannot be, whenever it is tried."""
