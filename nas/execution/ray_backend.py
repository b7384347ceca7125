"""Carries out a session's leases on Ray Tune; with `ray_adapter.py` and `ray_team.py` the only files that import ray.

The session decides everything. Tune gives it a searcher (which lease next), a scheduler (go on or stop) and warm
actors, one per device, in which the dataset stays loaded from trial to trial.
"""

import errno
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Self

import ray
import torch
from ray import tune
from ray._private import ray_constants, services
from ray._private.node import Node as RayNode
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError, RayTaskError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metaformer.architecture import Architecture
from metaformer.documents import is_folder
from metaformer.errors import UserError
from nas.data import DataInfo
from nas.execution.backend import Backend, Steps
from nas.execution.devices import Devices, Node, Wanted, share_out
from nas.execution.ray_adapter import Adapter, Beat, LeaseScheduler, LeaseSearcher, reason_of
from nas.execution.ray_team import TrialWorker
from nas.execution.signals import guarded, heard, held, stop_on_signals
from nas.execution.slots import Slots, check_answers
from nas.execution.worker import Data, measure_steps
from nas.session.session import Session
from nas.study.recipe import Recipe
from nas.study.study import StudyError
from nas.training.errors import MeasuringError

_OBJECT_STORE_BYTES = 200 * 1024**2  # leases and reports are small; nothing large travels
_STOPPING_SECONDS = 0.5  # in which a worker that has nothing to do ends by itself
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


class RayBackend(Backend):
    """A Ray cluster, this machine's or one that exists, as a place to carry out leases."""

    devices: Devices  # what each trial gets, once the context is entered
    lease_seconds = 0.3  # at most; benchmarks/overhead.py measures it

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
            with guarded(), _starting_unheard(), nullcontext() if self._address else _of_this_machine_alone():
                ray.init(
                    address=self._address or "local",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **({} if self._address else local),
                )
        except KeyboardInterrupt:
            ray.shutdown()
            raise
        except StudyError:
            raise
        except Exception as error:  # noqa: BLE001  of a node that does not come up Ray raises a plain one
            if self._address is None:
                raise StudyError(f"ray: must be able to start on this machine, got {_one_line(error)}") from None
            raise StudyError(
                f"ray_address: must be a running cluster, got {self._address!r} ({_one_line(error)})"
            ) from None
        try:
            self._gpu_bytes = _ask_memory_of_gpus() if self._wanted.gpus == "auto" else {}
            self._share_out()
        except (StudyError, KeyboardInterrupt):
            ray.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def measure(self, archs: Sequence[Architecture], recipe: Recipe, *, objectives: Sequence[str] = ()) -> Steps:
        """What training takes, in device-seconds per image, and device-seconds spent on measuring in all.

        Where several processes train a model one of them is measured, on its part of a batch. A GPU is measured whole:
        trials that share one are each as much slower as their part is smaller.

        Raises:
            StudyError: Not even a step of training works.
        """
        start = time.monotonic()
        devices = self.devices.of_one_process.model_copy(update={"gpus": math.ceil(self.devices.gpus)})
        recipe = recipe.model_copy(update={"batch_size": max(1, recipe.batch_size // self.devices.processes)})
        resources = devices.resources
        # Without a second try: Ray gives a task that takes too much memory as many as it likes.
        task = ray.remote(num_cpus=resources["CPU"], num_gpus=resources["GPU"], max_retries=0)(measure_steps)
        try:
            measured, seconds = ray.get(task.remote(self._data, devices, archs, recipe, objectives))
        except RayError as error:
            if isinstance(error, RayTaskError) and isinstance(error.cause, MeasuringError):
                raise StudyError(str(error.cause)) from None
            raise StudyError(f"recipe: must be one that trains on {self._data.name}, got {reason_of(error)}") from None
        count = devices.count
        by_device = [step.of_devices(count) for step in measured]
        all_seconds = time.monotonic() - start
        return Steps(by_device, count * all_seconds, count * max(0.0, all_seconds - seconds))

    def use(self, info: DataInfo) -> None:
        """Let every worker find these data in place of the ones before; called before any trial runs."""
        self._info = info
        self._share_out()

    def pack(self, peak_bytes: int) -> None:
        """Let as many trials share a GPU as the measured memory allows, where that is asked for."""
        self._share_out(peak_bytes)

    def run(self, session: Session, *, on_event: Callable[[], None] = lambda: None) -> None:
        """Carry out the session's leases until it has no more; `on_event` is called after each answer to it.

        The first Ctrl-C, SIGTERM or SIGHUP asks the session to stop; another Ctrl-C breaks off.

        Raises:
            StudyError: The study cannot be written.
            OSError: Nor can the scratch folder.
        """
        slots = Slots(self._count_slots, head=ray.get_runtime_context().gcs_address, number=self.num_workers)
        adapter = Adapter(session, num_devices=self.devices.count, slots=slots, on_event=on_event)
        param_space = {"data": self._data.model_dump(), "devices": self.devices.model_dump()}
        tuner = tune.Tuner(
            tune.with_resources(TrialWorker, self._place()),
            param_space=param_space,
            tune_config=tune.TuneConfig(
                search_alg=LeaseSearcher(adapter),
                scheduler=LeaseScheduler(adapter),
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
                callbacks=[Beat(adapter)],
                verbose=0,
            ),
        )
        for name in ("ray.tune", "ray.train"):  # they list trials of their own that broke, and files they cannot write
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with stop_on_signals(session.stop), _session_errors(self._scratch), slots, self._demand(), _ending_soon():
            tuner.fit()

    @contextmanager
    def _demand(self) -> Iterator[None]:
        """Ask a cluster that grows on demand for as many workers as were asked for; leases alone never wait for any."""
        if self._address is None or self._wanted.workers is None:
            yield
            return
        request_resources(bundles=[self.devices.resources_of_all] * self._wanted.workers)
        try:
            yield
        finally:
            request_resources(bundles=[])

    def _place(self) -> tune.PlacementGroupFactory:
        """What a trial asks of the cluster: of several processes each its own, and nothing for what watches them."""
        devices = self.devices
        if devices.processes == 1:
            return tune.PlacementGroupFactory([devices.resources])
        return tune.PlacementGroupFactory([{}, *[devices.resources] * devices.processes], strategy="STRICT_PACK")

    def _share_out(self, peak_bytes: int | None = None) -> None:
        """Decide what each trial gets.

        Raises:
            StudyError: Not one fits.
        """
        self.devices = share_out(self._wanted, self._nodes(), peak_bytes=peak_bytes)
        self._data = Data.of(
            self._info, num_loaders=self._wanted.num_loaders(self.devices), bad_images=self._wanted.bad_images
        )
        self.devices_per_trial = self.devices.count
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


@contextmanager
def _starting_unheard() -> Iterator[None]:
    """Hold SIGTERM back while Ray starts, whose native handler in this process aborts it; that is undone at the end.

    Ray's own processes are started without that: they would never hear SIGTERM, by which they are ended.
    """
    start = services.start_ray_process

    def start_hearing(*args: Any, **options: Any) -> Any:
        with heard():
            return start(*args, **options)

    with _replaced(services, start_ray_process=start_hearing), held():
        yield


@contextmanager
def _of_this_machine_alone() -> Iterator[None]:
    """Let what Ray starts inside listen on 127.0.0.1, which no other machine reaches; by itself it listens everywhere.

    Ray replaces an address of this kind that it is given by one that others reach, unless it is told that there is no
    cluster, as it has it on Windows (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER, which it reads when it is imported).
    """
    with _replaced(ray_constants, ENABLE_RAY_CLUSTER=False), _without_onlookers():
        yield


def _without_onlookers() -> AbstractContextManager[None]:
    """Let Ray start no processes that only look on: dashboard, autoscaler, reader of logs.

    It starts them even where no dashboard is asked for, and waits for the dashboard's: half of the time of a start.
    """
    return _replaced(RayNode, start_api_server=_do_nothing, start_log_monitor=_do_nothing, start_monitor=_do_nothing)


@contextmanager
def _replaced(owner: object, **parts: object) -> Iterator[None]:
    """Inside the block a module or class of Ray's has these in place of its own."""
    before = {name: getattr(owner, name) for name in parts}
    for name, part in parts.items():
        setattr(owner, name, part)
    try:
        yield
    finally:
        for name, part in before.items():
            setattr(owner, name, part)


def _do_nothing(*_: object, **__: object) -> None:
    """What stands in for a part of Ray that is not wanted."""


def _ending_soon() -> AbstractContextManager[None]:
    """Let Tune end at once the workers that have nothing to do any more.

    It asks each to stop and waits five seconds and more for those that are still starting: often one, begun for the
    last looks at test, which another had done before it was there.
    """
    before: Callable[[TuneController], None] = TuneController._cleanup_trials

    def clean_up(controller: TuneController) -> None:
        workers, end = controller._actor_manager, time.monotonic() + _STOPPING_SECONDS
        while workers.num_total_actors and time.monotonic() < end:
            workers.next(timeout=_STOPPING_SECONDS / 10)
        for worker in list(controller._stopping_actors):
            if workers.is_actor_started(worker):
                workers.remove_actor(worker, kill=True)
        before(controller)

    return _replaced(TuneController, _cleanup_trials=clean_up)


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _trial_id(trial: Trial) -> str:
    return str(trial.trial_id)


@contextmanager
def _session_errors(scratch: Path) -> Iterator[None]:
    """Raise what the session or the disk raised, out of what Tune wraps it in."""
    try:
        yield
    except ValueError as raised:
        if isinstance(raised, UserError) or is_folder(scratch):
            raise
        # Tune looks there for what it could not write
        raise NotADirectoryError(errno.ENOTDIR, "the folder is gone", str(scratch)) from None
    except tune.TuneError as wrapped:
        error: BaseException | None = wrapped
        while error is not None and not isinstance(error, UserError | OSError):
            error = error.__cause__ or error.__context__
        raise error or wrapped from None
