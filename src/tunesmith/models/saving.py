"""Writing weights: what a disk refuses is an OSError, whoever notices it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise OSError, with its number, where safetensors reports the system's refusal as an error of its own.

    Releases differ in the words they find for it. A full disk would otherwise look like a defect in the weights.
    """
    try:
        yield
    except SafetensorError as wrong:
        number = re.search(r"os error (\d+)|code: (\d+)", str(wrong))
        if number is None:
            raise
        code = int(number[1] or number[2])
        raise OSError(code, os.strerror(code)) from wrong
