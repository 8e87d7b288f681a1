"""The five ways a user's request can fail, some told more closely, and the one way to say so.

An error says what is wrong and where (`what`) and what to do about it (`fix`).
The command line prints both lines and exits with 2; anything else that is
raised is our own bug, keeps its traceback and exits with 1.
"""


class TunesmithError(Exception):
    """What is wrong, and where; `fix` says what to do."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n  fix: {self.fix}"


class ConfigError(TunesmithError):
    """A recipe, task file or option asks for something that does not exist."""


class DataError(TunesmithError):
    """A row, file or template cannot be read as asked."""


class FitError(TunesmithError):
    """Something does not fit: a row into the context, a run into memory or onto the disk."""


class DiskError(FitError):
    """The disk is full: with more room the same command goes on."""


class RunError(TunesmithError):
    """A run folder is not in the state the command needs."""


class DivergedError(RunError):
    """A training whose loss is no number: the same command would end the same way."""


class ForgotError(RunError):
    """A training came to its end, but forgot more than it may."""


class ModelError(TunesmithError):
    """A model or adapter cannot be found, read or used together."""


class SizesError(ModelError):
    """What a model or a method on it takes cannot be told from its sizes; it may well be trained."""
