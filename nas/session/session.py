"""The brain of a search: which trial next, go on or stop, what it costs.

Pure: it knows no ray, no torch and no clock. A backend asks `next()` for a lease, carries it out, and answers with
`measured()` and `report()` on the way and, when the device is free again, with `finish()`, `tested()`, `fail()` or
`halt()`, each time with the device-seconds the lease has used so far. The same seed and the same order of answers give
the same decisions.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from nas.record.notes import Event, EventKind
from nas.record.record import Record, TrialEnd
from nas.record.trials import LeaseEnd, StopReason, TrialRecord, TrialState
from nas.session.certainty.confirmation import Confirmation
from nas.session.certainty.outlook import Outlook, outlook
from nas.session.cost_model import CostModel
from nas.session.finalists import Finalists
from nas.session.leases import OpenLease, OpenLeases, Place
from nas.session.ledger import Ledger
from nas.session.pareto import HypervolumeScale
from nas.session.proposers import make_proposer
from nas.session.queue import TrialQueue
from nas.session.stoppers import Stopper, make_stopper
from nas.study.budget import Budget, parse_until
from nas.study.lease import Lease, LossCause, Measurement, Metrics, Report, Sign, lease_name
from nas.study.study import Study

MAX_ATTEMPTS = 3  # workers that one trial may lose before it has failed
MAX_NODES_LOST = 20  # machines likewise, which a cluster that shrinks takes away without any fault of the trial
_GROWTH_TO_ASK = 1.05  # of the complete trials, from one question whether more are worth it to the next
_FEW_TO_JUDGE = 8  # trials off the front at least, whose weights are then kept or dropped
_PART_TO_JUDGE = 0.05  # of the completed trials likewise, since to judge takes the longer the more there are
_MARGIN = 1.2  # times what is expected: so long may a trial take, since models of equal MACs differ
_FIRST_MARGIN = 2.0  # likewise trials side by side, until an epoch has shown how long
MAX_FAILURES = 10  # failed trials in a row before the session stops: something is wrong with all of them


class Decision(StrEnum):
    """What a backend does after a report."""

    CONTINUE = "continue"
    STOP = "stop"


class Session:
    """One search over one record: hand-designed models first, then proposals, as long as the budget allows."""

    def __init__(
        self,
        study: Study,
        record: Record,
        ledger: Ledger,
        *,
        place: Place,
        queue: TrialQueue,
        stopper: Stopper,
        scale: HypervolumeScale,
        on_drop: Callable[[int], None],
    ) -> None:
        """Put a session together; `open_session` does so from a study.

        Args:
            on_drop: Told the number of each trial whose checkpoints nobody needs any more.
        """
        self.study, self.record, self.ledger = study, record, ledger
        self.space, self.objectives = record.space, study.goals
        self.queue, self.stopper, self.place = queue, stopper, place
        self.costs = CostModel(place.speed, place.num_images, place.lease_seconds, record.notes.correction)
        self.confirmation = Confirmation(study, record, self.costs)
        self.finished = False
        self.problem: str | None = None  # why the session stopped by itself before its end
        self.events: list[Event] = []  # of this session alone; the record has all
        self.stopping = False
        self._scale = scale
        self._finalists = Finalists(scale, takes_all=study.finals is not None)
        self._on_drop = on_drop
        self._leases = OpenLeases(study, record, ledger, place=place)
        self._waiting = False  # nothing affordable until an open lease answers
        self._asked_at = 0  # complete trials, when it was last asked whether more are worth it
        self._num_failures = 0  # since the last completed trial
        self._in_doubt: set[int] = set()  # trials whose checkpoints are kept off the front
        self._checkpointed = {trial.checkpoint_trial for trial in record}  # whose checkpoints may be there
        self._has_taken_over = False  # only then all trials that go on are known

    def take_over(self) -> None:
        """Go on where the record stands: close the leases that a dead driver left open, and queue their trials."""
        if self.record.notes.finished:
            self.record.note(finished=False)
        for trial in self.record:
            self.stopper.observe(trial)
        self._charge_lost()
        self._finalists.add(self.record.complete)
        for trial in self.record:
            if trial.state is not TrialState.RUNNING:
                continue
            if trial.num_epochs >= self.study.recipe.epochs:
                self._end(trial, "complete")
            elif reason := self._beyond_limit(trial):
                self._end(trial, "stopped", StopReason.LIMIT, reason)
            elif reason := self.stopper.reason_to_stop(trial, self.front):
                self._end(trial, "stopped", StopReason.STOPPER, reason)
            else:
                self._interrupt(trial)
        self._has_taken_over = True
        self._drop_checkpoints()

    # ------------------------------------------------------------------ what a backend calls

    def next(self) -> Lease | None:
        """A lease to carry out now, or None: ask again after the next answer, unless `finished`."""
        if self.stopping or self.finished or self._waiting:
            self.finished = self.finished or (self.stopping and not self._leases)
            return None
        self._close_if_converged()
        trial = self.queue.next(self._is_affordable, self._affordable_macs)
        trial = trial or self.confirmation.next(self._free)
        if trial is not None:
            return self._train(trial)
        if not self._leases.num_training:  # the front is final
            trial = self._finalists.next_to_test(self._is_test_affordable)
            if trial is not None:
                return self._leases.open_test(trial, expected=self.costs.test_seconds(trial.macs))
        self._waiting = bool(self._leases)
        self.finished = not self._leases
        if self.finished:
            for trial in self.queue.end_resumable():
                self._end(trial, "stopped", StopReason.BUDGET, _BUDGET_SPENT)
            self._note_untested()
            self.record.note(finished=True)
        return None

    def measured(self, name: str, measurement: Measurement, *, device_seconds: float) -> Decision:
        """Note what a device measured before the first epoch; whether the lease goes on."""
        out = self._charge(name, device_seconds)
        out.is_warm, out.epoch_start = out.trial.progress.sign is None, device_seconds
        device = self.record.notes.device
        if device not in (None, measurement.device):
            measured = ", ".join(objective.name for objective in self.objectives.measured)
            self.problem = (
                f"objectives: {measured} must be measured on one kind of device, {device} in this study, "
                f"got {measurement.device}"
            )
            self.stop()
            out.end = LeaseEnd.INTERRUPTED
            return Decision.STOP
        if device is None:
            self.record.note(device=measurement.device)
        out.trial.add_measurement(measurement)
        self.record.save(out.trial)
        if reason := self._beyond_limit(out.trial):
            out.end, out.stop_reason, out.reason = LeaseEnd.STOPPED, StopReason.LIMIT, reason
        return Decision.STOP if out.end else Decision.CONTINUE

    def report(self, name: str, report: Report, *, device_seconds: float, metrics: Metrics | None = None) -> Decision:
        """Note an epoch of a lease and what the lease has used so far; whether it goes on."""
        out = self._charge(name, device_seconds)
        trial = out.trial
        if out.is_warm:  # the first report of a fresh worker holds its start as well
            seconds = device_seconds - out.epoch_start
            self.costs.observe_epoch(trial.macs, seconds)
            self.ledger.expect(name, seconds * (out.lease.epochs - report.epoch))
        if metrics is not None:
            seconds = round(max(0.0, device_seconds - out.epoch_start), 3)
            metrics = metrics.model_copy(update={"device_seconds": seconds})
        out.is_warm, out.epoch_start = True, device_seconds
        if report.note:
            self._note(EventKind.CHECKPOINT, report.note, trial=trial)
        trial.add_epoch(report, metrics)
        self.record.save(trial)
        self.stopper.observe(trial)
        if report.epoch >= out.lease.epochs:
            out.end = LeaseEnd.COMPLETE
        elif reason := self.stopper.reason_to_stop(trial, self.front):
            out.end, out.stop_reason, out.reason = LeaseEnd.STOPPED, StopReason.STOPPER, reason
        else:
            self._end_early(out)
        return Decision.STOP if out.end else Decision.CONTINUE

    def sign(self, name: str, sign: Sign, *, device_seconds: float) -> Decision:
        """Note a sign of life within an epoch and what the lease has used so far; whether it goes on.

        It may end only where it left a checkpoint, so that nothing that was paid for is lost.
        """
        out = self._charge(name, device_seconds)
        out.trial.add_sign(sign)
        if sign.checkpoint is not None:
            self._end_early(out)
        self.record.save(out.trial)
        return Decision.STOP if out.end else Decision.CONTINUE

    def _end_early(self, out: OpenLease) -> None:
        """Let a lease end here where the budget is spent, or the session stops."""
        if self.ledger.left <= self._held_back:
            out.end, out.stop_reason, out.reason = LeaseEnd.STOPPED, StopReason.BUDGET, _BUDGET_SPENT
        elif self.stopping:
            out.end = LeaseEnd.INTERRUPTED

    def finish(self, name: str, *, device_seconds: float) -> None:
        """End a lease whose last answer was STOP; its device is free again."""
        out = self._close(name, device_seconds)
        if out.end in (None, LeaseEnd.INTERRUPTED):
            self._interrupt(out.trial)
            return
        if out.stop_reason is StopReason.BUDGET:
            self.queue.stopped.append(out.trial)
        else:
            self._num_failures = 0
        self._end(out.trial, "complete" if out.end is LeaseEnd.COMPLETE else "stopped", out.stop_reason, out.reason)

    def tested(self, name: str, accuracy: float, *, device_seconds: float) -> None:
        """End a lease that has evaluated a trial on the test split."""
        out = self._close(name, device_seconds)
        self.record.set_test_accuracy(out.trial, accuracy)
        self._finalists.note_test()

    def fail(self, name: str, reason: str, *, device_seconds: float, lost: LossCause | None = None) -> None:
        """End a lease that broke; a trial whose worker was lost is queued again, until it has lost `MAX_ATTEMPTS`.

        Machines come and go, so one that is lost with its workers counts apart, up to `MAX_NODES_LOST`.

        Args:
            lost: What was lost; None: the fault is the trial's own.
        """
        out = self._close(name, device_seconds)
        end, most = (LeaseEnd.NODE_LOST, MAX_NODES_LOST) if lost is LossCause.NODE else (LeaseEnd.LOST, MAX_ATTEMPTS)
        if out.lease.task == "test":
            self._note(EventKind.UNTESTED, f"could not be tested: {reason}", trial=out.trial)
        elif lost and out.trial.count_ends(end) < most - 1:
            self._note(EventKind.LEASE_LOST, f"attempt {out.lease.attempt} was lost: {reason}", trial=out.trial)
            self._interrupt(out.trial, end)
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
            self._interrupt(out.trial)
        self.problem = self.problem or reason
        self.stop()

    def leave_out(self, images: Collection[str]) -> None:
        """Note images that could not be read and were left out."""
        new = set(images) - set(self.record.notes.images_left_out)
        if new:
            self.record.note(images_left_out=sorted(new.union(self.record.notes.images_left_out)))
            self._note(EventKind.IMAGES_LEFT_OUT, f"could not be read and took no part: {', '.join(sorted(new))}")

    def beat(self, used: Mapping[str, float]) -> None:
        """Note that the driver lives, and the device-seconds that each open lease has used in all by now."""
        self.record.note(alive=dict(used))

    def stop(self) -> None:
        """Start no more trials; running ones end at their next report and can go on later."""
        self.stopping = True

    # ------------------------------------------------------------------ what people look at

    @property
    def front(self) -> list[TrialRecord]:
        """The completed trials that no other dominates, by rising parameters; means of those of one architecture."""
        return self._finalists.front

    @property
    def hypervolume(self) -> float:
        """Part of the unit cube that the front dominates."""
        return self._finalists.hypervolume

    def outlook(self, seconds: float) -> Outlook | None:
        """What so many more device-seconds are expected to add to the hypervolume; None where that is not known yet."""
        return None if self.study.finals else outlook(self.record.trials, self._scale, seconds)

    @property
    def running(self) -> list[TrialRecord]:
        return self._leases.trials

    def expected_seconds(self, architecture: Architecture, *, epochs: int) -> float:
        """Device-seconds that training an architecture for `epochs` should take."""
        return self.costs.train_seconds(count_cost(architecture).macs, epochs=epochs)

    # ------------------------------------------------------------------ leases

    def _train(self, trial: TrialRecord) -> Lease:
        num_left = self.study.recipe.epochs - trial.num_epochs
        self._checkpointed.add(trial.checkpoint_trial)
        seconds = self.costs.train_seconds(trial.macs, epochs=num_left) + self._leases.start_seconds
        return self._leases.open_training(trial, expected=seconds)

    def _charge_lost(self) -> None:
        """Charge what leases that a dead driver left open had used after their last report, as far as it is known."""
        alive = self.record.notes.alive
        if alive:
            self.record.note(alive={})  # first, so that nothing is charged twice
        for trial in self.record:
            leases = trial.progress.leases
            if trial.state is TrialState.RUNNING and leases and leases[-1].end is None:
                self.ledger.lose(trial.lose(alive.get(lease_name(trial.number, leases[-1].attempt), 0.0)))
            test = alive.get(lease_name(trial.number, None), 0.0)
            if test:  # it has no charge of its own
                self.record.add_overhead(test)
                self.ledger.spent += test

    def _charge(self, name: str, device_seconds: float) -> OpenLease:
        self._waiting = False
        return self._leases.charge(name, device_seconds)

    def _close(self, name: str, device_seconds: float) -> OpenLease:
        self._waiting = False
        return self._leases.close(name, device_seconds)

    # ------------------------------------------------------------------ money

    @property
    def _held_back(self) -> float:
        """Device-seconds kept for evaluating on test: the front, the references, and what may come to be of them."""
        macs = self._leases.training_macs + self._finalists.to_test_macs
        return self.costs.test_seconds(macs, num_models=self._leases.num_training + len(self._finalists.to_test))

    @property
    def _free(self) -> float:
        """Device-seconds that another training may be expected to take.

        Trials side by side may each be slower than one that is measured alone. Until an epoch has shown by how much,
        another begins only where the budget pays for all of them at `_FIRST_MARGIN` times what is expected. Otherwise
        it might be spent before any of them is complete. Afterwards a trial that takes `_MARGIN` times as long still
        leaves what the tests need.
        """
        free = self.ledger.free - self._held_back
        if self.costs.correction.expected:
            free /= _MARGIN
        elif self._leases:
            free = (free - (_FIRST_MARGIN - 1) * self.ledger.reserved) / _FIRST_MARGIN
        return free - self._leases.start_seconds

    @property
    def _free_to_search(self) -> float:
        """What of it new architectures may take; what has begun may use the rest too."""
        return self._free - self.confirmation.left

    def _is_affordable(self, macs: int, num_done: int, seed: int | None) -> bool:
        seconds = self.costs.train_seconds(macs, epochs=self.study.recipe.epochs - num_done)
        is_new = seed is None and num_done == 0
        return seconds + self.costs.test_seconds(macs) <= (self._free_to_search if is_new else self._free)

    def _is_test_affordable(self, trial: TrialRecord) -> bool:
        return self.costs.test_seconds(trial.macs) <= self.ledger.free

    def _affordable_macs(self) -> int:
        return self.costs.affordable_macs(self._free_to_search, epochs=self.study.recipe.epochs)

    # ------------------------------------------------------------------ ends

    def _end(
        self, trial: TrialRecord, how: TrialEnd, stop_reason: StopReason | None = None, reason: str | None = None
    ) -> None:
        trial.end_lease(LeaseEnd(how))
        self.record.end(trial, how, stop_reason=stop_reason, reason=reason)
        self._note_correction()
        if trial.state is TrialState.COMPLETE:
            self._finalists.add([trial])
        self._drop_checkpoints()

    def _close_if_converged(self) -> None:
        """Begin nothing new where the rest of the budget promises less than the study asks for.

        It is asked when the complete trials have become more by a part.
        """
        least, num_complete = parse_until(self.study.until), len(self._finalists.checkpointed)
        if least is None or self.queue.is_closed or num_complete < _GROWTH_TO_ASK * self._asked_at:
            return
        self._asked_at = num_complete
        rest = self.outlook(self._free_to_search)
        if rest is None or rest.most >= least:
            return
        self.queue.is_closed = True
        if not any(event.kind is EventKind.CONVERGED for event in self.record.notes.events):
            text = (
                f"the rest of the budget is expected to add {rest.expected:.2%} of the hypervolume, {rest.most:.2%} at "
                "most (90 %); --until budget spends it"
            )
            self._note(EventKind.CONVERGED, text)

    def _note_correction(self) -> None:
        """Note what was learned of the speed, where it has changed by more than a hundredth."""
        noted, learned = self.record.notes.correction, self.costs.correction
        if abs(learned.factor - noted.factor) > 0.01 * noted.factor:
            self.record.note(correction=learned.model_dump())

    def _beyond_limit(self, trial: TrialRecord) -> str | None:
        """Why a trial whose device has measured too much is not trained, or None."""
        for name, most in self.study.measured_limits.items():
            if trial.measured.get(name, 0.0) > most:
                value, device = trial.measured[name], trial.progress.device
                return f"{name} must be at most {most:g}, got {value:.4g} on {device}"
        return None

    def _interrupt(self, trial: TrialRecord, end: LeaseEnd = LeaseEnd.INTERRUPTED) -> None:
        """End a trial's lease and queue the trial again."""
        trial.end_lease(end)
        self.record.save(trial)
        self.queue.resumable.append(trial)

    def _drop_checkpoints(self) -> None:
        """Drop the checkpoints that nobody will need.

        Where members of the front are trained again, what is off it may come back. So weights are kept as long as that
        is likely enough, which is asked when a few more trials have left the front.
        """
        if not self._has_taken_over:
            return
        wanted = (*self.queue.resumable, *self.queue.stopped, *self.running, *self._finalists.members)
        needed = {trial.checkpoint_trial for trial in wanted}
        if self.confirmation.share:
            off = (self._checkpointed - needed) & self._finalists.checkpointed
            if len(off - self._in_doubt) >= max(_FEW_TO_JUDGE, _PART_TO_JUDGE * len(self._finalists.checkpointed)):
                self._in_doubt = {trial.checkpoint_trial for trial in self.confirmation.in_doubt()}
                off &= self._in_doubt
            needed |= off
        for number in self._checkpointed - needed:
            self._on_drop(number)
        self._checkpointed &= needed

    def _note_untested(self) -> None:
        """Say so where the budget did not suffice for the test split."""
        untested = len(self._finalists.untried)
        if untested:
            were = "1 trial was" if untested == 1 else f"{untested} trials were"
            text = f"{were} not tested, since the budget is spent; --extend adds to it"
            self._note(EventKind.UNTESTED, text)

    def _note(self, kind: EventKind, text: str, *, trial: TrialRecord | None = None) -> None:
        self.events.append(self.record.add_event(kind, text, trial=None if trial is None else trial.number))


_BUDGET_SPENT = "the budget was spent before its last epoch"


def open_session(
    study: Study,
    record: Record,
    place: Place,
    *,
    on_drop: Callable[[int], None] = lambda _number: None,
    spent: float = 0.0,
    first: Sequence[Architecture] = (),
) -> Session:
    """The session of a study that goes on where its record stands.

    Args:
        on_drop: Told the number of each trial whose checkpoints nobody needs any more.
        spent: Device-seconds that the record does not hold.
        first: Architectures to try before the proposer is asked; those beyond the limits are left out.
    """
    scale = HypervolumeScale.of(record.space, study.goals, record.notes.bounds)
    proposer = make_proposer(study.sampler, record.space, study.goals, study.prior)
    session = Session(
        study,
        record,
        Ledger(Budget.parse(study.budget).seconds, spent=spent + record.spent_seconds, lost=record.lost_seconds),
        place=place,
        queue=TrialQueue(study, record, proposer, space=record.space, first=first),
        stopper=make_stopper(study, scale),
        scale=scale,
        on_drop=on_drop,
    )
    session.take_over()
    return session
