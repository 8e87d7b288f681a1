"""Ctrl-C and SIGTERM: the first asks for a clean end, the second ends at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Wish:
    """Which signal has asked to stop, None so far."""

    by: signal.Signals | None = None


@contextmanager
def stop_on_interrupt() -> Iterator[Wish]:
    """Give a wish that the first signal sets, inside the block; a second acts as if nobody listened.

    Outside the main thread, where signals do not arrive, the wish stays unasked.
    """
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        wish.by = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
