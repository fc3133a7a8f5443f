"""What a SLURM job asks for, as `--slurm` says it.

In: KEY=VALUE,KEY=VALUE. Out: submitit's names and values.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tcn.config import InputError

SHORT = {"gpus": "gpus_per_node", "cpus": "cpus_per_task"}
"""Our name of a resource -> submitit's. All other names are sbatch's own with underscores: partition, account, mem, qos."""


def wishes(text: str) -> dict[str, Any]:
    """The resources that `--slurm` asks for. InputError if the text can't be read.

    >>> wishes("partition=long,gpus=1,time=1-12:00:00")
    {'partition': 'long', 'gpus_per_node': 1, 'time': 2160}
    """
    found: dict[str, Any] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not (key and equals and value):
            raise InputError(f"--slurm takes KEY=VALUE,KEY=VALUE; got '{pair}'")
        name = SHORT.get(key, key.replace("-", "_"))
        asked = minutes(value) if key == "time" else int(value) if value.isdecimal() else value
        if found.setdefault(name, asked) != asked:
            raise InputError(f"--slurm gives {name} two values, {found[name]} and {asked}; leave one of them out")
    return found


def asks_gpus(found: Mapping[str, Any]) -> bool:
    """Whether `wishes` hold GPUs."""
    return bool(found.keys() & {"gpus_per_node", "gpus_per_task", "num_gpus", "gres"})


def minutes(text: str) -> int:
    """A time limit in minutes. It is written as sbatch takes it (minutes, H:M:S, D-H, D-H:M:S), or as 90m, 24h, 2d. InputError
    for any other text.

    >>> minutes("90"), minutes("2:30:00"), minutes("1-6"), minutes("24h")
    (90, 150, 1800, 1440)
    """
    if match := re.fullmatch(r"(\d+)([mhd]?)", text, re.ASCII):
        total = int(match[1]) * {"": 1, "m": 1, "h": 60, "d": 1440}[match[2]]
    elif match := re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+)(?::(\d+))?)?", text, re.ASCII):
        days, *parts = (int(part or 0) for part in match.groups())
        # Two numbers without days are minutes and seconds.
        if match[1] is None and match[4] is None:
            parts = [0, *parts[:2]]
        total = days * 1440 + parts[0] * 60 + parts[1] + (parts[2] > 0)
    else:
        total = 0
    if not total:
        raise InputError(f"--slurm time={text} is no time limit; give minutes, H:M:S or D-H:M:S")
    return total
