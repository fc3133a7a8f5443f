"""How a command ends where what it was given is wrong: one line instead of a traceback, and the status that others expect.

In: a command's `main`. Out: the same, which returns 2 for bad input and 130 for Ctrl-C.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from tcn.config import InputError
from tcn.files.atomic import warn

Given = ParamSpec("Given")


def ending(interrupted: str = "interrupted") -> Callable[[Callable[Given, int]], Callable[Given, int]]:
    """Decorator of a `main` that returns the exit status. An InputError is told on stderr, and Ctrl-C by the line
    `interrupted`."""
    def of(main: Callable[Given, int]) -> Callable[Given, int]:
        @functools.wraps(main)
        def command(*given: Given.args, **named: Given.kwargs) -> int:
            try:
                return main(*given, **named)
            except InputError as error:
                warn(f"error: {error}")
                return 2
            except KeyboardInterrupt:
                warn(interrupted)
                return 130
        return command
    return of
