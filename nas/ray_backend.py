"""Carries out a session's leases on Ray Tune; the only file that imports ray.

The session decides everything. Tune gives it a searcher (which lease next), a scheduler (go on or stop) and warm
actors, one per device, in which the dataset stays loaded from trial to trial.
"""

import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

import ray
import torch
from ray import cloudpickle, tune
from ray.autoscaler.sdk import request_resources
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError, WorkerCrashedError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metaformer.architecture import Architecture
from metaformer.errors import UserError
from metaformer.specs import Spec
from nas.checkpoint_files import StorageError
from nas.data import DataError, DataInfo, Dataset, open_dataset
from nas.devices import Devices, Node, Wanted, share_out
from nas.lease import Lease, Measured, Report
from nas.recipe import BadImages, Recipe
from nas.room import Room, check_answers
from nas.session import Decision, Session
from nas.study import StudyError
from nas.training import TrainingError, evaluate, measure_training, train

_WORKER_LOST = (RayActorError, NodeDiedError, WorkerCrashedError, OutOfMemoryError)
LEASE_SECONDS = 0.3  # that a warm worker takes to begin and end a lease, at most; benchmarks/overhead.py measures it
_OBJECT_STORE_BYTES = 200 * 1024**2  # leases and reports are small; nothing large travels
_MOST_TRIALS = 10_000  # at a time, on any cluster
_SETTINGS_OF_TUNE = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the first Ctrl-C lets running trials report; Tune's own would cut them off
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the study on disk is the only record
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # failures are recorded with their reason
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a box even where it is told to be silent
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # at Ray's 15 a trial beside other programs all but stands still, and is charged for it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default, and no warning about it
}


class Data(Spec):
    """What a worker opens: a dataset by name."""

    name: str
    resolution: int
    fingerprint: str
    num_loaders: int  # processes that read images, beside the worker itself
    bad_images: BadImages = "stop"

    def open(self) -> Dataset:
        """The dataset, as this node has it.

        Raises:
            DataError: It is not there, or not what the driver has.
        """
        dataset = open_dataset(
            self.name, resolution=self.resolution, num_workers=self.num_loaders, bad_images=self.bad_images
        )
        if dataset.info.fingerprint != self.fingerprint:
            raise DataError(
                f"data: must be the same on every node (fingerprint {self.fingerprint}), "
                f"got {dataset.info.fingerprint} on {socket.gethostname()}"
            )
        return dataset


class RayBackend:
    """A Ray cluster, this machine's or one that exists, as a place to carry out leases. A context manager."""

    devices: Devices  # what each trial gets, once the context is entered
    num_workers: int  # trials at a time, likewise

    def __init__(self, info: DataInfo, *, wanted: Wanted, address: str | None, scratch: Path) -> None:
        """Describe the cluster; entering the context connects to it.

        Args:
            info: Of the data that every worker must find.
            address: Of a running cluster that this machine is part of, `auto` or `host:port`; None: start one here.
            scratch: Folder for Tune's own files, on storage that all nodes share; emptied by the caller.
        """
        self._info = info
        self._wanted = wanted
        self._address = address
        self._scratch = scratch

    def __enter__(self) -> Self:
        os.environ.update(_SETTINGS_OF_TUNE)
        local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
        try:
            check_answers(self._address)
            ray.init(
                address=self._address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if self._address else local),
            )
        except (OSError, RuntimeError, ValueError) as error:
            if self._address is None:
                raise StudyError(f"ray: must be able to start on this machine, got {_one_line(error)}") from None
            raise StudyError(
                f"ray_address: must be a running cluster, got {self._address!r} ({_one_line(error)})"
            ) from None
        try:
            self._gpu_bytes = _ask_memory_of_gpus() if self._wanted.gpus == "auto" else {}
            self._share_out()
        except StudyError:
            ray.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def measure(self, archs: list[Architecture], recipe: Recipe) -> tuple[list[Measured], float]:
        """What training takes, in device-seconds per image, and device-seconds spent on measuring in all.

        A GPU is measured whole: trials that share one are each as much slower as their part is smaller.

        Raises:
            StudyError: Not even a step of training works.
        """
        start = time.monotonic()
        devices = self.devices.model_copy(update={"gpus": math.ceil(self.devices.gpus)})
        resources = devices.resources
        task = ray.remote(num_cpus=resources["CPU"], num_gpus=resources["GPU"])(_measure)
        try:
            measured = ray.get(task.remote(self._data, devices, archs, recipe))
        except RayError as error:
            raise StudyError(f"recipe: must be one that trains on {self._data.name}, got {_reason(error)}") from None
        count = devices.count
        by_device = [step.model_copy(update={"seconds_per_image": count * step.seconds_per_image}) for step in measured]
        return by_device, count * (time.monotonic() - start)

    def pack(self, peak_bytes: int) -> None:
        """Let as many trials share a GPU as the measured memory allows, where that is asked for."""
        self._share_out(peak_bytes)

    def run(self, session: Session, *, on_event: Callable[[], None]) -> None:
        """Carry out the session's leases until it has no more; `on_event` is called after each answer to it.

        The first Ctrl-C asks the session to stop, the second breaks off.

        Raises:
            StudyError: The study cannot be written.
            OSError: Nor can the scratch folder.
        """
        room = Room(self._count_slots, head=ray.get_runtime_context().gcs_address, num_slots=self.num_workers)
        adapter = _Adapter(session, num_devices=self.devices.count, room=room, on_event=on_event)
        param_space = {"data": self._data.model_dump(), "devices": self.devices.model_dump()}
        tuner = tune.Tuner(
            tune.with_resources(_TrialWorker, tune.PlacementGroupFactory([self.devices.resources])),
            param_space=param_space,
            tune_config=tune.TuneConfig(
                search_alg=_LeaseSearcher(adapter),
                scheduler=_LeaseScheduler(adapter),
                num_samples=-1,
                max_concurrent_trials=_MOST_TRIALS,  # the adapter holds back what the cluster has no room for
                reuse_actors=True,
                trial_dirname_creator=_trial_id,
                trial_name_creator=_trial_id,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(self._scratch),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # training keeps its own
                verbose=0,
            ),
        )
        logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # it lists trials of its own that broke
        with _stop_on_interrupt(session), _session_errors(), room, self._demand():
            tuner.fit()

    @contextmanager
    def _demand(self) -> Iterator[None]:
        """Ask a cluster that grows on demand for as many workers as were asked for; leases alone never wait for any."""
        if self._address is None or self._wanted.workers is None:
            yield
            return
        request_resources(bundles=[self.devices.resources] * self._wanted.workers)
        try:
            yield
        finally:
            request_resources(bundles=[])

    def _share_out(self, peak_bytes: int | None = None) -> None:
        """Decide what each trial gets.

        Raises:
            StudyError: Not one fits.
        """
        self.devices = share_out(self._wanted, self._nodes(), peak_bytes=peak_bytes)
        self._data = Data(
            name=self._info.name,
            resolution=self._info.resolution,
            fingerprint=self._info.fingerprint,
            num_loaders=self._wanted.num_loaders(self.devices),
            bad_images=self._wanted.bad_images,
        )
        self.num_workers = self._count_slots()

    def _nodes(self) -> list[Node]:
        """The machines of the cluster that are there now."""
        return [
            Node(
                cpus=int(node["Resources"].get("CPU", 0)),
                gpus=int(node["Resources"].get("GPU", 0)),
                gpu_bytes=self._gpu_bytes.get(node["NodeID"]),
            )
            for node in ray.nodes()
            if node["Alive"]
        ]

    def _count_slots(self) -> int:
        """Trials at a time for which there is room now."""
        fitting = self.devices.slots(self._nodes())
        return min(fitting, self._wanted.workers or fitting)


def _ask_memory_of_gpus() -> dict[str, int]:
    """By node with GPUs, the memory of the smallest of them in bytes."""
    task = ray.remote(num_cpus=0, num_gpus=0.001)(_memory_of_gpu)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in nodes
    ]
    return dict(zip(nodes, ray.get(asked), strict=True))


def _memory_of_gpu() -> int:
    return torch.cuda.get_device_properties(0).total_memory


def _measure(data: Data, devices: Devices, archs: list[Architecture], recipe: Recipe) -> list[Measured]:
    device, dataset = devices.take(), data.open()
    return [measure_training(arch, recipe, dataset, device=device) for arch in archs]


class _TrialWorker(tune.Trainable):
    """An actor of Tune's: one step is one epoch of the lease it holds, or its test."""

    def setup(self, config: dict[str, Any]) -> None:
        self._device = Devices.model_validate(config["devices"]).take()
        self._dataset = Data.model_validate(config["data"]).open()
        self._told: set[str] = set()  # images left out
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._lease = Lease.model_validate_json(new_config["lease"])
        self._reports = train(self._lease, self._dataset, device=self._device)
        return True

    def step(self) -> dict[str, Any]:
        """What an epoch gave, or what ended it; told as a result all the same, so that the actor stays warm."""
        try:
            if self._lease.task == "test":
                result: dict[str, Any] = {"test_accuracy": evaluate(self._lease, self._dataset, device=self._device)}
            else:
                result = {"report": next(self._reports).model_dump_json()}
        except TrainingError as error:
            result = {"failure": str(error)}
        except DataError as error:
            result = {"halt": str(error)}
        except StorageError as error:
            result = {"lost" if error.may_pass else "halt": str(error)}
        new = set(self._dataset.left_out()) - self._told
        self._told |= new
        return result | {"left_out": sorted(new)}


class _Adapter:
    """Which lease each of Tune's trials carries out and since when, and the session's answers to them."""

    def __init__(self, session: Session, *, num_devices: float, room: Room, on_event: Callable[[], None]) -> None:
        self.session = session
        self._num_devices = num_devices
        self._room = room
        self._on_event = on_event
        self._leases: dict[str, tuple[str, float]] = {}

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles what it is given to restore from it, and nothing is ever restored from there."""
        return {}

    def begin(self, trial_id: str) -> Lease | None:
        """A lease for one of Tune's trials; its time runs from here, so that the start of its worker is charged.

        None where the session has none now, or the cluster no room.
        """
        if len(self._leases) >= self._room.num_slots:
            return None
        lease = self.session.next()
        if lease is not None:
            self._leases[trial_id] = (lease.name, time.monotonic())
            self._on_event()
        return lease

    def result(self, trial_id: str, result: dict[str, Any]) -> Decision:
        name, seconds = self._used(trial_id)
        self.session.leave_out(result["left_out"])
        if "failure" in result or "lost" in result:
            reason = result.get("failure") or result["lost"]
            self.session.fail(name, reason, device_seconds=seconds, worker_lost="lost" in result)
            decision = Decision.STOP
        elif "halt" in result:
            self.session.halt(name, result["halt"], device_seconds=seconds)
            decision = Decision.STOP
        elif "test_accuracy" in result:
            self.session.tested(name, result["test_accuracy"], device_seconds=seconds)
            decision = Decision.STOP
        else:
            report = Report.model_validate_json(result["report"])
            decision = self.session.report(name, report, device_seconds=seconds)
            if decision is Decision.STOP:
                self.session.finish(name, device_seconds=seconds)
        if decision is Decision.STOP:
            del self._leases[trial_id]
        self._on_event()
        return decision

    def broke(self, trial_id: str, error: Exception | None) -> None:
        if trial_id not in self._leases:
            return  # its lease has ended; what broke was the actor on its way out
        name, seconds = self._used(trial_id)
        del self._leases[trial_id]
        self.session.fail(
            name,
            _reason(error),
            device_seconds=seconds,
            worker_lost=isinstance(error, _WORKER_LOST),
            node_lost=_is_node_lost(error),
        )
        self._on_event()

    def _used(self, trial_id: str) -> tuple[str, float]:
        name, start = self._leases[trial_id]
        return name, (time.monotonic() - start) * self._num_devices


class _LeaseSearcher(Searcher):
    """Tune's question for the next trial, passed on to the session; it keeps no state of its own."""

    def __init__(self, adapter: _Adapter) -> None:
        super().__init__()
        self._adapter = adapter

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # ray's own FINISHED
        lease = self._adapter.begin(trial_id)
        if lease is None:
            return Searcher.FINISHED if self._adapter.session.finished else None
        return {"lease": lease.model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the scheduler has told the session."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the study on disk is the only truth."""


class _LeaseScheduler(FIFOScheduler):
    """Tune's results and errors, passed on to the session."""

    def __init__(self, adapter: _Adapter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._adapter = adapter

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        decision = self._adapter.result(trial.trial_id, result)
        return str(FIFOScheduler.STOP if decision is Decision.STOP else FIFOScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        self._adapter.broke(trial.trial_id, _error_of(trial))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _trial_id(trial: Trial) -> str:
    return str(trial.trial_id)


def _error_of(trial: Trial) -> Exception | None:
    """What broke a trial, from the driver's own file: `get_pickled_error` reads a copy that is made later."""
    path = trial.pickled_error_file
    error: Exception | None = cloudpickle.loads(Path(path).read_bytes()) if path and Path(path).exists() else None
    return error


def _is_node_lost(error: Exception | None) -> bool:
    """Whether a worker was lost with its machine.

    The worker is often missed seconds before the machine is, so any machine that has fallen silent is taken for its.
    """
    if isinstance(error, NodeDiedError) or (isinstance(error, RayActorError) and error.preempted):
        return True
    return isinstance(error, _WORKER_LOST) and ("node has died" in str(error) or any(map(_is_silent, ray.nodes())))


def _is_silent(node: dict[str, Any]) -> bool:
    """Whether a machine that ray still counts on does not answer."""
    if not node["Alive"]:
        return False
    try:
        socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=2).close()
    except OSError:
        return True
    return False


def _reason(error: Exception | None) -> str:
    """One line that says what broke: the cause in the worker rather than ray's wrapping."""
    if error is None:
        return "the worker broke and left no reason"
    cause = error.cause if isinstance(error, RayTaskError) and error.cause else error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1].strip() if lines else 'no message'}"[:500]


@contextmanager
def _session_errors() -> Iterator[None]:
    """Raise what the session or the disk raised, out of what Tune wraps it in."""
    try:
        yield
    except tune.TuneError as wrapped:
        error: BaseException | None = wrapped
        while error is not None and not isinstance(error, UserError | OSError):
            error = error.__cause__ or error.__context__
        raise error or wrapped from None


@contextmanager
def _stop_on_interrupt(session: Session) -> Iterator[None]:
    """Turn the first Ctrl-C into a request to stop; the second is an ordinary KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(_number: int, _frame: FrameType | None) -> None:
        session.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
