"""Learning curves: of one architecture, and tables of many, which `python -m nas.table` records.

A table is a CSV file. Each row is a training: digest, seed, params, macs, epoch_seconds, test, genes, epoch_1, …
"""

import csv
import fcntl
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from metaformer.architecture import Architecture
from metaformer.documents import read_text
from metaformer.errors import one_line, shown, unknown_name
from metaformer.processes import belong_to_program
from nas.data import Dataset, open_dataset
from nas.study.lease import Lease, Measurement, Report
from nas.study.study import Study, StudyError
from nas.training.errors import TrainingError
from search_spaces.space import SearchSpace


class Curve(NamedTuple):
    """How an architecture does when it is trained to full length."""

    epoch_seconds: float  # on one device
    val_accuracies: tuple[float, ...]  # after each epoch
    measured: Mapping[str, float] = {}  # by objective
    test_accuracy: float | None = None  # after the last epoch

    def measurement(self, names: Sequence[str]) -> Measurement:
        """What a device would measure.

        Raises:
            StudyError: The curve does not know one of the objectives.
        """
        for name in names:
            if name not in self.measured:
                raise StudyError(unknown_name("objectives", name, self.measured))
        return Measurement(values={name: self.measured[name] for name in names}, device="simulated")


class Curves(Protocol):
    """Where the simulator reads how an architecture does."""

    def curve(self, architecture: Architecture) -> Curve: ...


class CurveTable:
    """Recorded learning curves by architecture.

    Attributes:
        architectures: Each once, in the order of the table.
    """

    def __init__(self, path: Path, space: SearchSpace) -> None:
        """Read a table of a space.

        Raises:
            StudyError: There is no such file, or it is no such table.
        """
        self.architectures: list[Architecture] = []
        self._curves: dict[str, dict[int, Curve]] = {}
        try:
            for row in csv.DictReader(read_text(path, "curves", error=StudyError).splitlines()):
                architecture = space.decode(json.loads(row["genes"]))
                by_seed = self._curves.setdefault(architecture.digest, {})
                if not by_seed:
                    self.architectures.append(architecture)
                by_seed[int(row.get("seed") or 0)] = _curve_of(row)
        except (KeyError, TypeError, ValueError) as error:
            raise StudyError(
                f"curves: must be a table of genes, epoch_seconds, epoch_1, …, got {path} ({error})"
            ) from None

    @property
    def num_epochs(self) -> int:
        """Epochs of the longest curve."""
        return max(len(curve.val_accuracies) for by_seed in self._curves.values() for curve in by_seed.values())

    def curve(self, architecture: Architecture) -> Curve:
        """The curve of the seed that was recorded first.

        Raises:
            StudyError: It was not recorded.
        """
        return next(iter(self.by_seed(architecture).values()))

    def by_seed(self, architecture: Architecture) -> Mapping[int, Curve]:
        """The curves of all its seeds.

        Raises:
            StudyError: It was not recorded.
        """
        if architecture.digest not in self._curves:
            raise StudyError(f"curves: must hold every architecture tried, got none of {architecture.digest}")
        return self._curves[architecture.digest]


class Training(NamedTuple):
    """One row of a table, to be."""

    architecture: Architecture
    seed: int


class CurveFile:
    """A table that is being recorded by this process alone: what is there, and new rows at its end."""

    def __init__(self, path: Path, space: SearchSpace) -> None:
        """Entering the context opens the table, or begins one."""
        self._path, self._space = path, space
        self.recorded: set[tuple[str, int]] = set()  # digests and seeds

    def __enter__(self) -> Self:
        """Read what is there; a last line that was cut short is dropped.

        Raises:
            StudyError: It is there and is no such table, another process writes it, or it cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            rule = "must be a file that can be written"
            raise StudyError(f"out: {rule}, got {shown(str(self._path))} ({error.strerror})") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            text = read_text(self._path, "out", error=StudyError)
            whole = text[: text.rfind("\n") + 1]
            self.recorded = {(row["digest"], int(row["seed"])) for row in csv.DictReader(whole.splitlines())}
            self._file.truncate(len(whole.encode()))
        except BlockingIOError:
            self._file.close()
            raise StudyError(f"out: must not be at work in another process, got {shown(str(self._path))}") from None
        except (KeyError, TypeError, ValueError) as error:
            self._file.close()
            what = shown(str(self._path))
            raise StudyError(f"out: must be a table of learning curves, got {what} ({one_line(str(error))})") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, training: Training, curve: Curve) -> None:
        """Write a row; it is in the file whole, or is dropped when the table is opened again."""
        architecture, seed = training
        cost = self._space.cost(architecture)
        row = {
            "digest": architecture.digest,
            "seed": seed,
            "params": cost.params,
            "macs": cost.macs,
            "epoch_seconds": f"{curve.epoch_seconds:.3f}",
            "test": "" if curve.test_accuracy is None else f"{curve.test_accuracy:.4f}",
            "genes": json.dumps(self._space.encode(architecture)),
            **{f"epoch_{i}": f"{accuracy:.4f}" for i, accuracy in enumerate(curve.val_accuracies, start=1)},
        }
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(row), lineterminator="\n")
        if not self.recorded:
            writer.writeheader()
        writer.writerow(row)
        self._file.write(text.getvalue())
        self._file.flush()
        self.recorded.add((architecture.digest, seed))


def _curve_of(row: Mapping[str, str]) -> Curve:
    accuracies = tuple(float(row[name]) for name in row if name.startswith("epoch_") and name[6:].isdigit())
    test = row.get("test")
    return Curve(float(row["epoch_seconds"]), accuracies, test_accuracy=float(test) if test else None)


def record(
    study: Study,
    trainings: Iterable[Training],
    file: CurveFile,
    *,
    num_processes: int,
    on_row: Callable[[], None] = lambda: None,
) -> None:
    """Train on CPU cores by a study's data, recipe and splits, and write a row for each.

    Args:
        num_processes: Trainings at a time, one torch thread each.
        on_row: Called after each row.
    Raises:
        DataError: An image cannot be read.
        StudyError: A training cannot go on, or a process was killed.
    """
    context = get_context("spawn")
    with ProcessPoolExecutor(num_processes, context, _begin_process, (study.model_dump_json(),)) as pool:
        futures = {
            pool.submit(_train, training.architecture.model_dump_json(), training.seed): training
            for training in trainings
        }
        try:
            for future in as_completed(futures):
                file.add(futures[future], future.result())
                on_row()
        except TrainingError as error:
            raise StudyError(str(error)) from None
        except BrokenProcessPool:
            raise StudyError("table: a process that trains was killed; the same command goes on") from None
        finally:
            for process in active_children():  # none goes on to its end where the program is interrupted
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


_work: tuple[Study, Dataset]  # of this process, which trains


def _begin_process(study: str) -> None:
    import torch

    global _work  # noqa: PLW0603  a pool gives its processes no other place
    belong_to_program()
    torch.set_num_threads(1)
    asked = Study.model_validate_json(study)
    dataset = open_dataset(
        asked.data, resolution=asked.settings.resolution, bad_images=asked.bad_images, splitting=asked.splitting
    )
    _work = asked, dataset


def _train(architecture: str, seed: int) -> Curve:
    """Processor seconds an epoch, start and evaluation included, and accuracies."""
    import torch

    from nas.training.loop import evaluate, train

    study, dataset = _work
    device, start = torch.device("cpu"), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        lease = Lease(
            trial=0,
            attempt=1,
            architecture=Architecture.model_validate_json(architecture),
            recipe=study.recipe,
            epochs=study.recipe.epochs,
            seed=seed,
            folder=folder,
        )
        given = train(lease, dataset, device=device)
        accuracies = tuple(report.val_accuracy for report in given if isinstance(report, Report))
        seconds = time.process_time() - start
        test = evaluate(lease.model_copy(update={"task": "test"}), dataset, device=device)
    return Curve(seconds / len(accuracies), accuracies, test_accuracy=test)
