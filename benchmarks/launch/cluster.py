"""Ray's workers: runs as tasks on this machine or on a cluster (the only file that imports ray).

In: an address, the number of runs at once and on each GPU. Out: a `Launcher`. All machines must see the output folder, the data
and the project at the same paths; only jobs and outcomes pass between them.
"""
from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from benchmarks.launch.jobs import GRACE_SECONDS, Ended, Job, Share, cores, share, work
from tcn.config import InputError

# Set before ray is imported, so that no usage data leaves the machine and no other host is contacted.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Without this, Ray hides the GPUs from a task that asked for none, and prints a warning about it.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

LOCALHOST = "127.0.0.1"


def _import(local: bool) -> Any:
    if local:
        # Without this, Ray resolves 127.0.0.1 to an address that other machines can reach, and listens on all addresses.
        # Despite its name, the variable has this effect on every system. It is read when ray is imported.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError as error:
        raise InputError("--launcher ray needs Ray, which is not installed; run pip install -r requirements-ray.lock "
                         "(or pip install 'ray>=2.50,<3'), or use --launcher processes") from error
    return ray


class RayLauncher:
    """Launcher of Ray tasks. The cluster assigns CPUs and parts of GPUs; a task that dies with its worker is reported as lost."""

    def __init__(self, device: str, address: str | None = None, *, workers: int | None = None, threads: int | None = None,
                 runs_per_gpu: int | None = None, cpus_per_run: int | None = None, gpus_per_run: int | None = None,
                 run: Callable[[Job], Any] = work) -> None:
        """`device`: auto, cpu or cuda. `address`: that of a running cluster; None starts Ray on this machine, on loopback alone.

        InputError if Ray is missing, if the cluster can't be reached, or if it lacks what was asked for.
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
                                      runs_per_gpu=runs_per_gpu, cpus_per_run=cpus_per_run, gpus_per_run=gpus_per_run)
            its = self.share.gpus_per_run
            each = {"num_cpus": cpus_per_run or self.share.threads * its,
                    "num_gpus": (its if its > 1 else 1 / self.share.runs_per_gpu) if self.device == "cuda" else 0}
            if not any(all(node["Resources"].get(kind, 0) >= need for kind, need in
                           (("CPU", each["num_cpus"]), ("GPU", each["num_gpus"]))) for node in ray.nodes() if node["Alive"]):
                raise InputError(f"no machine of the Ray cluster has {each['num_cpus']} CPUs"
                                 + (f" and {each['num_gpus']:g} GPU" if each["num_gpus"] else "")
                                 + " for one run; pass a smaller --cpus-per-run"
                                 + (", --threads or --gpus-per-run" if its > 1 else " or --threads"))
        except InputError:
            ray.shutdown()
            raise
        # Ray does not retry: the driver does, since it counts retries, reports them, and knows which failures are final. On
        # GPUs each task gets a process of its own: a process that has used one GPU stays with it although Ray assigns another,
        # and a process whose device is lost can't be used again.
        self._task = ray.remote(max_retries=0, max_calls=1 if each["num_gpus"] else 0, **each)(run)
        self._running: dict[Any, Job] = {}
        nodes = sum(node["Alive"] for node in ray.nodes())
        self.about = (f"Ray {ray.__version__}, {nodes} machine{'' if nodes == 1 else 's'}, {cpus} CPUs, {gpus} GPUs, up to "
                      f"{self.share.workers} runs at once")

    def free(self) -> int:
        """The number of `workers` that have no task; Ray itself waits for the resources."""
        return self.share.workers - len(self._running)

    def start(self, job: Job) -> None:
        """Submit the job as a task."""
        self._running[self._task.remote(job)] = job

    def poll(self, seconds: float) -> list[Ended]:
        """Tasks that ended, with an outcome or because their worker died."""
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
        """Cancel as Ctrl-C does, so that a run can record its state; after GRACE_SECONDS, cancel by force."""
        references = list(self._running)
        for force, seconds in ((False, GRACE_SECONDS), (True, 5.0)):
            for reference in references:
                with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
                    self._ray.cancel(reference, force=force)
            _, references = self._ray.wait(references, num_returns=len(references), timeout=seconds) if references else ([], [])
        self._running.clear()

    def close(self) -> None:
        """Disconnect from the cluster, or end Ray on this machine."""
        self._ray.shutdown()


def _device(asked: str, gpus: int) -> str:
    """`cpu` or `cuda`; Ray chooses which of a machine's GPUs. InputError for `cuda` if the cluster has no GPU."""
    if asked not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {asked} can't be used with --launcher ray, which hands out GPUs itself; pass cpu or cuda")
    if asked == "cuda" and not gpus:
        raise InputError("--device cuda can't be used here (the Ray cluster has no GPU); try --device cpu")
    return "cuda" if gpus and asked != "cpu" else "cpu"
