"""Ctrl-C, SIGTERM and SIGHUP: one orderly end, and the exit status that others expect.

In: signals. Out: `Interrupted` raised where the program is, so that what was finished stays and the rest is marked; the
second signal is told that this is under way, the third ends the process at once.
"""
from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_arrived: list[int] = []


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def caught(*numbers: int) -> Iterator[None]:
    """Signals raise Interrupted in this block (default: SIGINT, SIGTERM, SIGHUP; those that the caller of the process had
    ignored stay so), also where a library makes another error of it; handlers are given back afterwards. Without effect
    outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _arrived.clear()
    before = {}
    try:
        for number in numbers or SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, _handle)
        yield
    except Exception as error:
        # An import that was interrupted may drop the signal and leave a module behind that works no more.
        if interrupted := pending():
            raise interrupted from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _arrived.clear()


def _handle(number: int, frame: object) -> None:
    _arrived.append(number)
    if len(_arrived) == 1:
        raise Interrupted(number)
    if len(_arrived) == 2:
        os.write(2, b"\nstopping already: marking what ran; once more ends it at once\n")
        return
    os._exit(128 + number)


def pending() -> Interrupted | None:
    """The signal that has arrived in this block, if any."""
    return Interrupted(_arrived[0]) if _arrived else None


def check() -> None:
    """Raise the Interrupted that a library may have swallowed (Python drops exceptions in destructors and some callbacks)."""
    if error := pending():
        raise error


def status(error: KeyboardInterrupt) -> int:
    """The conventional exit status: 128 and the signal's number."""
    return 128 + getattr(error, "number", signal.SIGINT)
