"""Ray's workers: runs as tasks on this machine or on a cluster (the only ray import).

In: an address, how many runs at once and on each GPU. Out: a `Launcher`. All machines must see the output folder, the data and
the project at the same paths; only jobs and outcomes pass between them.
"""
from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from benchmarks.launch.jobs import GRACE_SECONDS, Ended, Job, Share, cores, share, work
from tcn.config import InputError

# Before ray is imported: no usage data leaves the machine, and no other host is asked for anything.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Ray would else hide the GPUs from a task that asked for none, and warns about it.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

LOCALHOST = "127.0.0.1"


def _import(local: bool) -> Any:
    if local:
        # Else Ray resolves 127.0.0.1 to an address that others can reach, and listens on all. Read when ray is imported; the
        # name tells of other systems, the effect is on all: this machine alone, on loopback.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError as error:
        raise InputError("--launcher ray needs Ray, which is not installed; run pip install -r requirements-ray.lock "
                         "(or pip install 'ray>=2.50,<3'), or use --launcher processes") from error
    return ray


class RayLauncher:
    """Launcher of Ray tasks. The cluster hands out CPUs and parts of GPUs; a task that dies with its worker is reported lost."""

    def __init__(self, device: str, address: str | None = None, *, workers: int | None = None, threads: int | None = None,
                 runs_per_gpu: int | None = None, cpus_per_run: int | None = None,
                 run: Callable[[Job], Any] = work) -> None:
        """`device`: auto, cpu or cuda. `address`: of a running cluster, else Ray starts on this machine, on loopback alone.

        InputError where Ray is missing, the cluster can't be reached, or it lacks what was asked for.
        """
        self._ray = ray = _import(address is None)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address is None:
            options |= {"num_cpus": cores(), "include_dashboard": False, "_node_ip_address": LOCALHOST}
        try:
            ray.init(address=address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise InputError(f"Ray at {address or 'this machine'} can't be used ({str(error).splitlines()[0]}); check "
                             f"--ray-address and that `ray status` answers there") from error
        there = ray.cluster_resources()
        cpus, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
        try:
            self.device = _device(device, gpus)
            self.share: Share = share(cpus, gpus if self.device == "cuda" else 0, workers=workers, threads=threads,
                                      runs_per_gpu=runs_per_gpu, cpus_per_run=cpus_per_run)
            each = {"num_cpus": cpus_per_run or self.share.threads,
                    "num_gpus": 1 / self.share.runs_per_gpu if self.device == "cuda" else 0}
            if not any(all(node["Resources"].get(kind, 0) >= need for kind, need in
                           (("CPU", each["num_cpus"]), ("GPU", each["num_gpus"]))) for node in ray.nodes() if node["Alive"]):
                raise InputError(f"no machine of the Ray cluster has {each['num_cpus']} CPUs"
                                 + (f" and {each['num_gpus']:g} GPU" if each["num_gpus"] else "")
                                 + " for one run; pass a smaller --cpus-per-run or --threads")
        except InputError:
            ray.shutdown()
            raise
        # Retries are the driver's: it counts them, says so, and knows which failures are final. A process that has used one GPU
        # stays with it while Ray hands out another, and one that has lost its GPU is of no use: one process a task there.
        self._task = ray.remote(max_retries=0, max_calls=1 if each["num_gpus"] else 0, **each)(run)
        self._running: dict[Any, Job] = {}
        nodes = sum(node["Alive"] for node in ray.nodes())
        self.about = (f"Ray {ray.__version__}, {nodes} machine{'' if nodes == 1 else 's'}, {cpus} CPUs, {gpus} GPUs, up to "
                      f"{self.share.workers} runs at once")

    def free(self) -> int:
        """Places among `workers`; Ray itself waits for the resources."""
        return self.share.workers - len(self._running)

    def start(self, job: Job) -> None:
        """Submit the job as a task."""
        self._running[self._task.remote(job)] = job

    def poll(self, seconds: float) -> list[Ended]:
        """Tasks that ended: with an outcome, or with their worker."""
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [self._outcome(reference) for reference in ready]

    def _outcome(self, reference: Any) -> Ended:
        job = self._running.pop(reference)
        try:
            return Ended(job, self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            return Ended(job, lost=f"the Ray worker was lost ({type(error).__name__})")

    def stop(self) -> None:
        """Cancel as by Ctrl-C, which lets a run note where it is; after the grace, by force."""
        references = list(self._running)
        for force, seconds in ((False, GRACE_SECONDS), (True, 5.0)):
            for reference in references:
                with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
                    self._ray.cancel(reference, force=force)
            _, references = self._ray.wait(references, num_returns=len(references), timeout=seconds) if references else ([], [])
        self._running.clear()

    def close(self) -> None:
        """Leave the cluster, or end Ray on this machine."""
        self._ray.shutdown()


def _device(asked: str, gpus: int) -> str:
    """`cpu` or `cuda`: which one of a machine's GPUs is Ray's choice. InputError where the cluster has none."""
    if asked not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {asked} can't be used with --launcher ray, which hands out GPUs itself; pass cpu or cuda")
    if asked == "cuda" and not gpus:
        raise InputError("--device cuda can't be used here (the Ray cluster has no GPU); try --device cpu")
    return "cuda" if gpus and asked != "cpu" else "cpu"
