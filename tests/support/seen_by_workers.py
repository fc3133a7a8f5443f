"""What a worker process does in the place of a run, apart from the tests: it imports no more than a worker does."""
from __future__ import annotations

import os

import torch

from benchmarks.launch.jobs import Failure, Job
from benchmarks.launch.processes import VISIBLE


def told(job: Job) -> Failure:
    """As a failure's reason: the GPUs that the process was started with, the device of its job, whether CUDA was begun."""
    return Failure(f"{os.environ.get(VISIBLE)} {job.device} {torch.cuda.is_initialized()}", True)
