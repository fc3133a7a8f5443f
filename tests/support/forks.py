"""A process that is a fork of this one: all is imported there already, which takes longer than most of what it is to do."""
from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def forked(work: Callable[[], object]) -> int:
    """Do something in a process of its own, whose id is returned; it ends with status 0, or with 1 and a traceback."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # the tests must not go on in two processes
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(process: int) -> int:
    """Wait for its end; the exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
