"""The brain of a search: which trial next, go on or stop, what it costs.

Pure: it knows no ray, no torch and no clock. A backend asks `next()` for a lease, carries it out, and answers with
`report()` after each epoch and, when the device is free again, with `finish()`, `tested()` or `fail()`, each time with
the device-seconds the lease has used so far. The same seed and the same order of answers give the same decisions.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from nas.budget import Ledger
from nas.checkpoint_files import folder_of
from nas.halving import Stopper
from nas.lease import WEIGHTS, Lease, Report, Speed, Task
from nas.pareto import HypervolumeScale
from nas.record import LeaseCharge, Record, TrialEnd, TrialRecord, TrialState, front_of
from nas.samplers import SpaceSampler
from nas.study import Study
from search_spaces.space import Limits, SearchSpace

MAX_ATTEMPTS = 3  # workers that one trial may lose before it has failed
MAX_NODES_LOST = 20  # machines likewise, which a cluster that shrinks takes away without any fault of the trial
MAX_FAILURES = 10  # failed trials in a row before the session stops: something is wrong with all of them
BUDGET_GONE = "the budget was spent before its last epoch"  # such a trial goes on when there is more
_LEFT_OUT = "images_left_out"  # noted in the study
_EVAL_SHARE = 1 / 3  # of a training step's time: a forward pass without the backward one


class Decision(StrEnum):
    """What a backend does after a report."""

    CONTINUE = "continue"
    STOP = "stop"


@dataclass
class _Open:
    """A lease that is out, and why its next report ends it (None: it goes on)."""

    lease: Lease
    trial: TrialRecord
    is_warm: bool  # its worker has started, as far as can be told
    end: str | None = None
    reason: str | None = None


class Session:
    """One search over one record: references first, then what the sampler suggests, as long as the budget allows."""

    def __init__(
        self,
        study: Study,
        record: Record,
        ledger: Ledger,
        *,
        space: SearchSpace,
        speed: Speed,
        num_images: Mapping[str, int],
        num_workers: int,
        checkpoints: str,
        on_drop: Callable[[int], None],
        stopper: Stopper,
        first: Sequence[Architecture] = (),
        lease_seconds: float = 0.0,
    ) -> None:
        """Take up the record where it stands; leases that a dead driver left open are closed and queued again.

        Args:
            speed: Seconds that training takes on one device, as measured.
            num_images: Images in the splits `train`, `val` and `test`.
            num_workers: Trials that run at a time.
            checkpoints: Path or URI of the folder with one folder for each trial.
            on_drop: Told the home of each trial whose checkpoints nobody needs any more.
            stopper: Says which trials go no further than a rung.
            first: Architectures to try before the sampler is asked; those beyond the limits are left out.
            lease_seconds: Device-seconds that a warm worker takes to begin and end a lease, beside its work.
        """
        self.study = study
        self.record = record
        self.ledger = ledger
        self.space = space
        self.num_workers = num_workers
        self.finished = False
        self.problem: str | None = None  # why the session stopped by itself before its end
        self.notes: list[str] = []  # what went wrong without ending anything
        self.speed = speed
        self._num_images = num_images
        self._checkpoints = checkpoints
        self._on_drop = on_drop
        self.stopper = stopper
        self._lease_seconds = lease_seconds
        self._open: dict[str, _Open] = {}
        self._num_training, self._training_macs = 0, 0  # of the open leases that train
        self._stopping = False
        self._waiting = False  # nothing affordable until an open lease answers
        self._test_tried: set[int] = set()
        self._num_failures = 0  # since the last completed trial
        self._num_leases = 0
        self._expected, self._actual = 0.0, 0.0  # device-seconds of the epochs seen: foretold, and as they were
        self._seen = {trial.architecture.digest for trial in record}
        self._scale = HypervolumeScale.of(space)
        smallest = (space.smallest("params"), space.smallest("macs"))
        self._smallest = [count_cost(architecture) for architecture in smallest]
        by_cost = {(cost.params, cost.macs): arch for cost, arch in zip(self._smallest, smallest, strict=True)}
        self._queue = [  # the cheapest are the ends of any front, and they cost next to nothing
            architecture
            for architecture in (*by_cost.values(), *first)
            if architecture.digest not in self._seen and study.settings.limits.allow(count_cost(architecture))
        ]
        self._exhausted = False
        self._resumable: list[TrialRecord] = []
        self._stopped: list[TrialRecord] = []  # by the budget
        self.num_suggested = sum(trial.reference is None and trial.home == trial.number for trial in record)
        self._tested_anyway: list[TrialRecord] = []  # completed references
        self._checkpointed: set[int] = set()  # homes whose checkpoints may be there
        self.front: list[TrialRecord] = []
        for trial in record:
            stopper.observe(trial)
        self._update_front(record.complete)
        for trial in record:
            if trial.state is TrialState.RUNNING:
                self._take_over(trial)
        self._stopped = self._unfinished()
        self.references = self._missing_references()
        self._checkpointed = {trial.home for trial in record}
        self._drop_checkpoints()

    # ------------------------------------------------------------------ what a backend calls

    def next(self) -> Lease | None:
        """A lease to carry out now, or None: ask again after the next answer, unless `finished`."""
        if self._stopping or self.finished or self._waiting:
            self.finished = self.finished or (self._stopping and not self._open)
            return None
        trial = self._next_trial()
        if trial is not None:
            return self._lease(trial)
        if not self._num_training:  # the front is final
            for trial in self.to_test:
                if trial.number not in self._test_tried and self.expected_test_seconds(trial) <= self.ledger.free:
                    return self._test_lease(trial)
        self._waiting = bool(self._open)
        self.finished = not self._open
        if self.finished:
            self._end_resumable()
            self._note_untested()
        return None

    def report(self, name: str, report: Report, *, device_seconds: float) -> Decision:
        """Note an epoch of a lease and what the lease has used so far; whether it goes on."""
        out = self._open[name]
        before = out.trial.progress.leases[-1].device_seconds
        self._charge(out, device_seconds)
        if out.is_warm:  # the first report of a fresh worker holds its start as well
            self._actual += max(0.0, device_seconds - before)
            self._expected += self.speed.seconds_per_image(out.trial.macs) * self._images_per_epoch
        out.is_warm = True
        self._note_epoch(out.trial, report)
        self.stopper.observe(out.trial)
        if report.epoch >= out.lease.epochs:
            out.end = "complete"
        elif reason := self.stopper.reason_to_stop(out.trial, self.front):
            out.end, out.reason = "halted", reason
        elif self.ledger.left <= self._held_back:
            out.end = "stopped"
        elif self._stopping:
            out.end = "interrupted"
        return Decision.STOP if out.end else Decision.CONTINUE

    def finish(self, name: str, *, device_seconds: float) -> None:
        """End a lease whose last report was answered with STOP; its device is free again."""
        out = self._close(name, device_seconds)
        end = out.end or "interrupted"
        if end == "interrupted":
            self._set_lease_end(out.trial, end)
            self.record.save(out.trial)
            self._resumable.append(out.trial)
        elif end == "complete":
            self._num_failures = 0
            self._end(out.trial, "complete")
        elif end == "halted":
            self._num_failures = 0
            self._end(out.trial, "stopped", reason=out.reason)
        else:
            self._stopped.append(out.trial)
            self._end(out.trial, "stopped", reason=BUDGET_GONE)

    def tested(self, name: str, accuracy: float, *, device_seconds: float) -> None:
        """End a lease that has evaluated a trial on the test split."""
        out = self._close(name, device_seconds)
        self.record.set_test_accuracy(out.trial, accuracy)

    def fail(
        self, name: str, reason: str, *, device_seconds: float, worker_lost: bool = False, node_lost: bool = False
    ) -> None:
        """End a lease that broke; a trial whose worker was lost is queued again, until it has lost `MAX_ATTEMPTS`.

        Machines come and go, so one that is lost with its workers counts apart, up to `MAX_NODES_LOST`.
        """
        end, most = ("node lost", MAX_NODES_LOST) if node_lost else ("lost", MAX_ATTEMPTS)
        out = self._close(name, device_seconds)
        if out.lease.task == "test":
            self.notes.append(f"trial {out.trial.number} could not be tested: {reason}")
        elif (worker_lost or node_lost) and sum(lease.end == end for lease in out.trial.progress.leases) < most - 1:
            self._set_lease_end(out.trial, end)
            self.record.save(out.trial)
            self._resumable.append(out.trial)
        else:
            self._end(out.trial, "failed", reason=reason)
            self._num_failures += 1
            if self._num_failures == MAX_FAILURES:
                last = f"{MAX_FAILURES} trials failed one after another, the last with: {reason}"
                self.problem = f"search: must have trials that work; {last}"
                self.stop()

    def halt(self, name: str, reason: str, *, device_seconds: float) -> None:
        """End a lease that met what every other would meet, such as a full disk; its trial goes on in another session.

        Other running trials end at their next report, and `problem` holds the reason.
        """
        out = self._close(name, device_seconds)
        if out.lease.task == "train":
            self._set_lease_end(out.trial, "interrupted")
            self.record.save(out.trial)
            self._resumable.append(out.trial)
        self.problem = self.problem or reason
        self.stop()

    def leave_out(self, images: Collection[str]) -> None:
        """Note images that could not be read and were left out."""
        if images:
            self.record.note(_LEFT_OUT, sorted(self.left_out.union(images)))

    @property
    def left_out(self) -> set[str]:
        """Images of the data that could not be read and were left out, in this session or before."""
        noted = self.record.noted(_LEFT_OUT)
        return set(noted) if isinstance(noted, list) else set()

    def stop(self) -> None:
        """Start no more trials; running ones end at their next report and can go on later."""
        self._stopping = True

    # ------------------------------------------------------------------ what people look at

    @property
    def stopping(self) -> bool:
        return self._stopping

    @property
    def to_test(self) -> list[TrialRecord]:
        """Members of the front and completed references that have no accuracy on the test split yet."""
        both = {trial.number: trial for trial in (*self.front, *self._tested_anyway)}
        return [trial for trial in both.values() if trial.test_accuracy is None]

    @property
    def running(self) -> list[TrialRecord]:
        return [out.trial for out in list(self._open.values())]

    @property
    def num_waiting(self) -> int:
        """References and interrupted trials that have not been given a lease yet."""
        return len(self.references) + len(self._resumable)

    def expected_seconds(self, architecture: Architecture, *, epochs: int) -> float:
        """Device-seconds that training an architecture for `epochs` should take, corrected by what has been seen."""
        return self.seconds_for(count_cost(architecture).macs, epochs=epochs)

    def seconds_for(self, macs: int, *, epochs: int) -> float:
        """The same for an architecture of so many MACs."""
        return self.speed.seconds_per_image(macs) * self._images_per_epoch * epochs * self._correction

    def expected_test_seconds(self, trial: TrialRecord) -> float:
        """Device-seconds that evaluating a trial on the test split should take."""
        return self._test_seconds(trial.macs)

    # ------------------------------------------------------------------ choosing

    def _next_trial(self) -> TrialRecord | None:
        """The next trial that the budget affords: interrupted ones, references, the ends of the front, a suggestion."""
        for trial in self._resumable:
            if self._affordable(trial.architecture, trial.num_epochs):
                self._resumable.remove(trial)
                return trial
        for trial in self._stopped:
            if self._affordable(trial.architecture, trial.num_epochs):
                self._stopped.remove(trial)
                return self.record.go_on(trial)
        for name, architecture in self.references.items():
            if self._affordable(architecture, 0):
                del self.references[name]
                return self.record.start(architecture, reference=name)
        if self._exhausted or (self.study.max_trials is not None and self.num_suggested >= self.study.max_trials):
            return None
        self._queue = [architecture for architecture in self._queue if architecture.digest not in self._seen]
        for architecture in self._queue:
            if self._affordable(architecture, 0):
                self.num_suggested += 1
                return self.record.start(architecture)
        return self._suggest()

    def _suggest(self) -> TrialRecord | None:
        """A new trial of the sampler's; None where the budget affords none, or all architectures are known."""
        max_macs = self._affordable_macs()
        limits = self.study.settings.limits
        if limits.max_macs is not None:
            max_macs = min(max_macs, limits.max_macs)
        tight = Limits(max_params=limits.max_params, max_macs=max_macs) if max_macs >= 1 else None
        if tight is None or not self._has_any(tight):
            return None
        sampler = SpaceSampler(
            self.study.sampler,
            space=self.space,
            limits=tight,
            seen=self._seen,
            seed=(self.study.seed * 1_000_003 + len(self.record.trials)) % 2**32,
        )
        trial = self.record.ask(sampler)
        if sampler.exhausted:
            self._exhausted = True
            self.record.end(trial, "stopped", reason="every architecture that is allowed has been tried")
            return None
        self.num_suggested += 1
        return trial

    def _test_lease(self, trial: TrialRecord) -> Lease:
        self._test_tried.add(trial.number)
        lease = self._make_lease(trial, task="test", attempt=1, checkpoint=WEIGHTS)
        self._open_lease(lease, trial, self.expected_test_seconds(trial))
        return lease

    def _lease(self, trial: TrialRecord) -> Lease:
        attempt = len(trial.progress.leases) + 1
        leases = (*trial.progress.leases, LeaseCharge(attempt=attempt))
        trial.progress = trial.progress.model_copy(update={"leases": leases})
        self.record.save(trial)
        self._seen.add(trial.architecture.digest)
        checkpoint = trial.progress.curve[-1].checkpoint if trial.progress.curve else None
        lease = self._make_lease(trial, task="train", attempt=attempt, checkpoint=checkpoint)
        self._open_lease(lease, trial, self.seconds_for(trial.macs, epochs=lease.epochs - trial.num_epochs))
        self._checkpointed.add(trial.home)
        return lease

    def _make_lease(self, trial: TrialRecord, *, task: Task, attempt: int, checkpoint: str | None) -> Lease:
        return Lease(
            task=task,
            trial=trial.number,
            attempt=attempt,
            architecture=trial.architecture,
            recipe=self.study.recipe,
            epochs=self.study.recipe.epochs,
            seed=self.study.seed,
            folder=folder_of(self._checkpoints, trial.home),
            checkpoint=checkpoint,
        )

    def _open_lease(self, lease: Lease, trial: TrialRecord, expected: float) -> None:
        self.ledger.open(lease.name, expected=expected)
        self._open[lease.name] = _Open(lease, trial, is_warm=self._num_leases >= self.num_workers)
        self._num_leases += 1
        if lease.task == "train":
            self._num_training += 1
            self._training_macs += trial.macs

    # ------------------------------------------------------------------ money

    @property
    def _correction(self) -> float:
        """Seconds that leases took by seconds that the measured speed foretold."""
        return self._actual / self._expected if self._expected else 1.0

    @property
    def _images_per_epoch(self) -> float:
        return self._num_images["train"] + self._num_images["val"] * _EVAL_SHARE

    @property
    def _held_back(self) -> float:
        """Device-seconds kept for evaluating on test: the front, the references, and what may come to be of them."""
        to_test = self.to_test
        macs = self._training_macs + sum(trial.macs for trial in to_test)
        return self._test_seconds(macs, num_models=self._num_training + len(to_test))

    def _test_seconds(self, macs: int, *, num_models: int = 1) -> float:
        """Device-seconds that evaluating models of so many MACs together on the test split should take."""
        per_image = self.speed.seconds_per_image(macs, num_models=num_models) * _EVAL_SHARE * self._correction
        return per_image * self._num_images["test"] + self._lease_seconds * num_models

    def _affordable(self, architecture: Architecture, num_done: int) -> bool:
        macs = count_cost(architecture).macs
        seconds = self.seconds_for(macs, epochs=self.study.recipe.epochs - num_done) + self._test_seconds(macs)
        return seconds <= self.ledger.free - self._held_back

    def _affordable_macs(self) -> int:
        """The most MACs a model may have to be trained in full with what is free."""
        num_images = self._images_per_epoch * self.study.recipe.epochs + self._num_images["test"] * _EVAL_SHARE
        per_image = (self.ledger.free - self._held_back - self._lease_seconds) / (num_images * self._correction)
        if self.speed.per_gmac == 0:
            return 10**18 if per_image >= self.speed.base else 0
        return max(0, int((per_image - self.speed.base) / self.speed.per_gmac * 1e9))

    def _has_any(self, limits: Limits) -> bool:
        return any(limits.allow(cost) for cost in self._smallest)

    # ------------------------------------------------------------------ bookkeeping

    def _missing_references(self) -> dict[str, Architecture]:
        """References without a trial that counts, by the names they go under here; equal architectures share one."""
        limits = self.study.settings.limits
        tried = {t.architecture.digest for t in self.record if t.reason != BUDGET_GONE or t in self._stopped}
        return {
            label: arch
            for label, arch in self.space.distinct_references(self.study.references).items()
            if arch.digest not in tried and limits.allow(count_cost(arch))
        }

    def _take_over(self, trial: TrialRecord) -> None:
        """Close the lease that a dead driver left open; a trial whose last report had ended it gets its end."""
        if trial.num_epochs >= self.study.recipe.epochs:
            self._end(trial, "complete")
        elif reason := self.stopper.reason_to_stop(trial, self.front):
            self._end(trial, "stopped", reason=reason)
        else:
            self._set_lease_end(trial, "interrupted")
            self.record.save(trial)
            self._resumable.append(trial)

    def _unfinished(self) -> list[TrialRecord]:
        """Trials that an earlier, smaller budget stopped after some epochs, and that have not been taken up yet."""
        last = {trial.home: trial for trial in self.record}  # of those that share checkpoints
        return [trial for trial in last.values() if trial.reason == BUDGET_GONE and trial.num_epochs]

    def _end_resumable(self) -> None:
        """Tell the end of interrupted trials that the budget no longer affords; more of it takes them up."""
        for trial in self._resumable:
            self._stopped.append(trial)
            self.record.end(trial, "stopped", reason=BUDGET_GONE)
        self._resumable = []

    def _note_untested(self) -> None:
        """Say so where the budget did not suffice for the test split."""
        untested = [trial for trial in self.to_test if trial.number not in self._test_tried]
        if untested:
            self.notes.append(f"{len(untested)} trials were not tested, since the budget is spent; --extend adds to it")

    def _charge(self, out: _Open, device_seconds: float) -> None:
        charged = self.ledger.charge(out.lease.name, device_seconds)
        self._waiting = False
        if out.lease.task == "test":
            return
        *before, last = out.trial.progress.leases
        leases = (*before, last.model_copy(update={"device_seconds": charged}))
        out.trial.progress = out.trial.progress.model_copy(update={"leases": leases})

    def _close(self, name: str, device_seconds: float) -> _Open:
        out = self._open[name]
        self._charge(out, device_seconds)
        if out.lease.task == "test":
            self.record.add_overhead(device_seconds)
        else:
            self._num_training -= 1
            self._training_macs -= out.trial.macs
        self.ledger.close(name)
        del self._open[name]
        return out

    def _note_epoch(self, trial: TrialRecord, report: Report) -> None:
        """Add an epoch to a trial's curve, whose later part goes where training had to fall back."""
        if report.note:
            self.notes.append(f"trial {trial.number}: {report.note}")
        before = (earlier for earlier in trial.progress.curve if earlier.epoch < report.epoch)
        curve = (*before, report.model_copy(update={"note": None}))
        trial.progress = trial.progress.model_copy(update={"curve": curve})
        self.record.save(trial)

    def _set_lease_end(self, trial: TrialRecord, end: str) -> None:
        """Say how the trial's last lease ended, unless it has not had one or that has been said."""
        if trial.progress.leases and trial.progress.leases[-1].end is None:
            *before, last = trial.progress.leases
            leases = (*before, last.model_copy(update={"end": end}))
            trial.progress = trial.progress.model_copy(update={"leases": leases})

    def _end(self, trial: TrialRecord, how: TrialEnd, *, reason: str | None = None) -> None:
        self._set_lease_end(trial, how)
        self.record.end(trial, how, reason=reason)
        if trial.state is TrialState.COMPLETE:
            self._update_front([trial])
        self._drop_checkpoints()

    def _update_front(self, completed: Sequence[TrialRecord]) -> None:
        """Take up trials that have been trained to the end."""
        self._tested_anyway += [trial for trial in completed if trial.reference]
        self.front = front_of([*self.front, *completed])
        self.hypervolume = self._scale.hypervolume([trial.objectives for trial in self.front])

    def _drop_checkpoints(self) -> None:
        """Drop the checkpoints that nobody will need."""
        wanted = (*self._resumable, *self._stopped, *self.running, *self.front, *self._tested_anyway)
        needed = {trial.home for trial in wanted}
        for home in self._checkpointed - needed:
            self._on_drop(home)
        self._checkpointed &= needed
