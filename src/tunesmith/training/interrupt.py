"""Ctrl-C: the first asks for a clean end, the second ends at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Wish:
    """Whether someone has asked to stop."""

    asked = False


@contextmanager
def stop_on_interrupt() -> Iterator[Wish]:
    """Give a wish that the first Ctrl-C sets, inside the block; the second raises KeyboardInterrupt as usual.

    Outside the main thread, where signals do not arrive, the wish stays unasked.
    """
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        wish.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, ask)
    try:
        yield wish
    finally:
        signal.signal(signal.SIGINT, before)
