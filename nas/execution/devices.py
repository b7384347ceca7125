"""What each trial gets of a cluster's devices, and how many trials run at a time; needs no ray."""

import math
import os
from collections.abc import Sequence

import torch
from pydantic import NonNegativeInt, PositiveInt

from metaformer.specs import Spec
from nas.study.budget import DeviceKind
from nas.study.recipe import BadImages
from nas.study.study import GpuShare, StudyError

_SPARE = 1.25  # times the measured peak: what the allocator splits up, and other architectures of that size
_CONTEXT_BYTES = 2**30  # of a GPU, which each process takes for itself
_GRAIN = 10_000  # Ray counts devices in parts this small


class Node(Spec):
    """What one machine of a cluster has."""

    cpus: NonNegativeInt
    gpus: NonNegativeInt = 0
    gpu_bytes: NonNegativeInt | None = None  # memory of one of its GPUs, where it has been asked for


class Devices(Spec):
    """What one trial runs on: cores, and a GPU or a part of one."""

    kind: DeviceKind
    cpus: PositiveInt  # of each process
    gpus: float = 0.0
    processes: PositiveInt = 1  # that train one model together, on one node

    @property
    def count(self) -> float:
        """Devices that a lease is charged for: cores, or the part of a GPU."""
        return self.processes * (self.cpus if self.kind == "cpu" else self.gpus)

    @property
    def resources(self) -> dict[str, float]:
        """Of each process."""
        return {"CPU": self.cpus, "GPU": self.gpus}

    @property
    def resources_of_all(self) -> dict[str, float]:
        return {name: self.processes * number for name, number in self.resources.items()}

    @property
    def of_one_process(self) -> "Devices":
        return self.model_copy(update={"processes": 1})

    def slots(self, nodes: Sequence[Node]) -> int:
        """Trials that fit on the nodes at a time; none spans nodes, or GPUs."""
        return sum(self._processes_on(node) // self.processes for node in nodes)

    def most_processes(self, nodes: Sequence[Node]) -> int:
        """Processes that fit on one node."""
        return max(self._processes_on(node) for node in nodes)

    def _processes_on(self, node: Node) -> int:
        by_cores = node.cpus // self.cpus
        return by_cores if self.kind == "cpu" else min(by_cores, node.gpus * int(1 / self.gpus))

    def take(self) -> torch.device:
        """The device of this process, which uses no more threads than it has cores."""
        torch.set_num_threads(self.cpus)
        return torch.device("cuda" if self.kind == "gpu" else "cpu")


class Wanted(Spec):
    """What was asked for; None is left to the backend."""

    kind: DeviceKind
    cpus: PositiveInt | None = None  # of each trial; by default 1 on CPUs, on GPUs an equal share of the cores
    gpus: GpuShare | None = None  # of each trial; by default a whole one; auto: as little as the measured memory allows
    processes: PositiveInt = 1  # that train one model together, each with such devices
    workers: PositiveInt | None = None  # trials at a time; by default as many as the devices allow
    bad_images: BadImages = "stop"
    loaders: NonNegativeInt | None = None  # by default none on CPUs, on GPUs one for each core but the trial's own

    def num_loaders(self, devices: Devices) -> int:
        """Processes of each trial that read images."""
        if self.loaders is not None:
            return self.loaders
        return devices.cpus - 1 if self.kind == "gpu" else 0


def gpus_may_be_visible() -> bool:
    """Whether this machine has a GPU that a trial could train on; with CUDA_VISIBLE_DEVICES empty it has none.

    It answers at once, where a cluster takes a minute to start; of other machines of a cluster it knows nothing.
    """
    return torch.cuda.is_available()


def no_gpus() -> StudyError:
    """What to raise for a budget of GPU time where there is no GPU."""
    return StudyError(
        "budget: must be in devices that are visible, got GPU time where there is no GPU; with the CPU "
        "cores here --budget 6cpu-minutes would work"
    )


def too_many_processes(wanted: Wanted, most: int) -> StudyError:
    """What to raise where no node has devices for all processes of a model."""
    cores = f" with {wanted.cpus} cores each" if (wanted.cpus or 1) > 1 else ""
    return StudyError(
        f"{wanted.kind}s_per_model: must be at most {most}{cores}, all that a node has, got {wanted.processes}"
    )


def check_here(wanted: Wanted) -> None:
    """Check at once that this machine, where it is the whole cluster, has devices for all processes of a model.

    Raises:
        StudyError: It has not.
    """
    most = torch.cuda.device_count() if wanted.kind == "gpu" else (os.cpu_count() or 1) // (wanted.cpus or 1)
    if wanted.processes > max(1, most):
        raise too_many_processes(wanted, most)


def share_out(wanted: Wanted, nodes: Sequence[Node], *, peak_bytes: int | None = None) -> Devices:
    """What each trial gets, the same on all nodes, however they differ.

    Args:
        peak_bytes: Most memory that training takes on a GPU, as measured; None: a whole GPU where it matters.
    Raises:
        StudyError: Not one trial fits; the message says what would.
    """
    kind = wanted.kind
    if kind == "gpu":
        nodes = [node for node in nodes if node.gpus]
        if not nodes:
            raise no_gpus()
    gpus = _gpu_share(wanted, nodes, peak_bytes) if kind == "gpu" else 0.0
    per_gpu = int(1 / gpus) if gpus else 1
    share = min(max(1, node.cpus // (node.gpus * per_gpu)) for node in nodes) if kind == "gpu" else 1
    devices = Devices(kind=kind, cpus=wanted.cpus or share, gpus=gpus, processes=wanted.processes)
    if not devices.of_one_process.slots(nodes):
        most = max(node.cpus for node in nodes)
        raise StudyError(f"cpus_per_trial: must be at most {most}, all that a node has, got {devices.cpus}")
    if not devices.slots(nodes):
        raise too_many_processes(wanted, devices.most_processes(nodes))
    return devices


def _gpu_share(wanted: Wanted, nodes: Sequence[Node], peak_bytes: int | None) -> float:
    """The part of a GPU that each trial gets; the smallest memory and the fewest cores of any node decide."""
    if wanted.gpus != "auto":
        return round((wanted.gpus or 1.0) * _GRAIN) / _GRAIN
    if peak_bytes is None or any(node.gpu_bytes is None for node in nodes):
        return 1.0
    by_memory = min(int((node.gpu_bytes or 0) / (peak_bytes * _SPARE + _CONTEXT_BYTES)) for node in nodes)
    by_cores = min(node.cpus // (node.gpus * (wanted.cpus or 1)) for node in nodes)
    per_gpu = max(1, min(by_memory, by_cores))
    if wanted.workers:  # fewer trials than fit share the GPUs among themselves
        per_gpu = min(per_gpu, math.ceil(wanted.workers / sum(node.gpus for node in nodes)))
    return math.floor(_GRAIN / per_gpu) / _GRAIN
