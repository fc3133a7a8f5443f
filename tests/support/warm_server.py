"""What the server of `warm.py` imports before it forks; nothing else may import this."""
from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver

import torch
from support import warm

import tcn.train.parallel  # noqa: F401

torch.set_num_threads(1)
multiprocessing.get_context = warm.context
# The server's processes start further ones from it, too; Python would have each begin a server of its own.
forkserver._forkserver.ensure_running = lambda: None
