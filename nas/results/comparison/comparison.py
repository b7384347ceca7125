"""Runs side by side, as values: fronts and hypervolume in one scale, who dominates whom, what settings differ."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from metaformer.errors import UserError, one_line, shown
from nas.record.run_folder import Run
from nas.record.trials import TrialRecord, TrialState
from nas.results.results import Results
from nas.results.uncertainty import CLEAR, Estimate, Uncertainty
from nas.session.pareto import HypervolumeScale, dominates, front_of
from nas.study.objectives import Objectives
from nas.study.splitting import Splitting
from nas.study.study import Study

_NOT_SETTINGS = {"version", "storage", "storage_name", "identity", "checkpoints", "data_fingerprint"}


@dataclass(frozen=True)
class Difference:
    """A field of `study.yaml` in which the runs differ, with its value in each of them."""

    field: str
    values: tuple[object, ...]


@dataclass(frozen=True)
class Standing:
    """How the front of one run stands to the models of another."""

    first: int  # index of the run whose models may dominate
    second: int  # index of the run whose front it is
    dominated: tuple[TrialRecord, ...]  # members of this front of which it is clear
    tied: tuple[TrialRecord, ...]  # members of which it is a toss-up
    num_members: int


@dataclass(frozen=True)
class Member:
    """A trial of the front that all runs have together."""

    run: int
    trial: TrialRecord
    estimate: Estimate | None


class Comparison:
    """Runs that have objectives, data and splits in common.

    Attributes:
        runs: What each of them has found.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        """Check that the runs can be compared.

        Raises:
            UserError: There are fewer than two, one is there twice, or they are of other objectives or data.
        """
        if len(runs) < 2:
            raise UserError(f"runs: must be two at least, got {len(runs)}")
        for place, run in enumerate(runs):
            for earlier in runs[:place]:
                _check_another(earlier, run)
                _check_comparable(earlier, run)
        self.runs = tuple(Results(run) for run in runs)

    @cached_property
    def goals(self) -> Objectives:
        """The objectives, in the order of the first run."""
        return self.runs[0].goals

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name of each run: that of its folder, or its path where several have one name."""
        count = Counter(results.run.name for results in self.runs)
        return tuple(
            results.run.name if count[results.run.name] == 1 else str(results.run.folder.path) for results in self.runs
        )

    @cached_property
    def uncertainty(self) -> Uncertainty | None:
        """How sure the accuracies are, by all trials of all runs; None where nothing is known of the noise."""
        trials = list(self._copies.values())
        num_val = next((results.num_val for results in self.runs if results.num_val), None)
        if not trials or not num_val:
            return None
        trained = [(results.run.study.recipe, results.run.study.splitting) for results in self.runs]
        settings = [trained.index(trained[place]) for place, _ in self._copies]
        return Uncertainty(trials, self.goals, num_val=num_val, settings=settings)

    @cached_property
    def _copies(self) -> dict[tuple[int, int], TrialRecord]:
        """The complete trials of all runs under numbers of their own, by the index of their run and their number."""
        trials = [(place, trial) for place, results in enumerate(self.runs) for trial in results.run.record.complete]
        return {(place, trial.number): replace(trial, number=row) for row, (place, trial) in enumerate(trials)}

    @cached_property
    def _means(self) -> dict[tuple[int, int], TrialRecord]:
        """The same, but those of one architecture in one run as one, under the number of the first."""
        trials = [(place, trial) for place, results in enumerate(self.runs) for trial in results.complete]
        return {
            (place, trial.number): replace(trial, number=self._copies[place, trial.number].number)
            for place, trial in trials
        }

    def estimate(self, run: int, trial: TrialRecord) -> Estimate | None:
        """What is believed of a complete trial of a run, given all trials of all runs."""
        return self.uncertainty.estimate(self._copies[run, trial.number]) if self.uncertainty else None

    @cached_property
    def scale(self) -> HypervolumeScale | None:
        """One scale for all runs, from the least to the most of each cost in any; None while no bound is known."""
        known = [
            HypervolumeScale.of(results.run.space, self.goals, results.notes.bounds).bounds
            for results in self.runs
            if results.complete
        ]
        if not known:
            return None
        merged = [
            (min(b[0] for b in column if b), max(b[1] for b in column if b)) if any(column) else None
            for column in zip(*known, strict=True)
        ]
        return HypervolumeScale(self.goals, tuple(merged))

    def hypervolume(self, run: int) -> float:
        """What the front of a run dominates in the common scale, in [0, 1]."""
        if self.scale is None:
            return 0.0
        return self.scale.hypervolume([self.goals.values(trial) for trial in self.runs[run].front])

    def progress(self, run: int) -> list[tuple[float, float]]:
        """Device-seconds charged to trials, and the hypervolume then, after each trial of a run that ended.

        What was spent beside trials, on measuring and testing, has no place in time and is left out.
        """
        ended = [trial for trial in self.runs[run].trials if trial.state is not TrialState.RUNNING]
        ended.sort(
            key=lambda trial: (trial.ended_at is None, trial.ended_at and trial.ended_at.timestamp(), trial.number)
        )
        seconds, hypervolume, points = 0.0, 0.0, [(0.0, 0.0)]
        members: list[TrialRecord] = []
        for trial in ended:
            seconds += trial.device_seconds + trial.lost_seconds
            if trial.state is TrialState.COMPLETE and self.scale is not None:
                members = front_of([*members, trial], self.goals)
                if any(member is trial for member in members):
                    hypervolume = self.scale.hypervolume([self.goals.values(member) for member in members])
            points.append((seconds, hypervolume))
        return points

    @cached_property
    def front(self) -> list[Member]:
        """The complete trials that none of any run dominates, by rising parameters."""
        owners = {copy.number: key for key, copy in self._means.items()}
        numbers = [{trial.number: trial for trial in results.complete} for results in self.runs]
        members = []
        for copy in front_of(list(self._means.values()), self.goals):
            place, number = owners[copy.number]
            trial = numbers[place][number]
            members.append(Member(place, trial, self.estimate(place, trial)))
        return members

    @cached_property
    def standings(self) -> list[Standing]:
        """For each two runs, both ways, how the front of one stands to the models of the other."""
        places = range(len(self.runs))
        return [self._standing(first, second) for first in places for second in places if first != second]

    def _standing(self, first: int, second: int) -> Standing:
        front = self.runs[second].front
        known = [(trial, self._p_dominated(second, trial, by=first)) for trial in front]
        return Standing(
            first,
            second,
            dominated=tuple(trial for trial, p in known if p >= CLEAR),
            tied=tuple(trial for trial, p in known if 1 - CLEAR < p < CLEAR),
            num_members=len(front),
        )

    def _p_dominated(self, run: int, trial: TrialRecord, *, by: int) -> float:
        """The probability that a model of another run dominates a trial; without known noise, whether val says so."""
        others = [self._means[by, other.number] for other in self.runs[by].complete]
        own = self._means[run, trial.number]
        if self.uncertainty is not None:
            return self.uncertainty.p_dominated(own, by=others)
        point = self.goals.values(own)
        return float(any(dominates(self.goals.values(other), point, self.goals) for other in others))

    @cached_property
    def differences(self) -> list[Difference]:
        """The fields of `study.yaml` in which the runs differ; where and under which name they are kept is none."""
        flat = [_flat(results.run.study) for results in self.runs]
        fields = dict.fromkeys(field for values in flat for field in values)
        rows = [Difference(field, tuple(values.get(field) for values in flat)) for field in fields]
        return [row for row in rows if any(value != row.values[0] for value in row.values)]


def _check_another(earlier: Run, run: Run) -> None:
    """Check that a run is not an earlier one again, nor a copy of it."""
    is_same = earlier.folder.path.resolve() == run.folder.path.resolve()
    if is_same or (run.study.identity is not None and run.study.identity == earlier.study.identity):
        copied = "" if is_same else f", which {str(earlier.folder.path)!r} is too"
        raise UserError(f"runs: must be different ones, got {shown(str(run.folder.path))} twice{copied}")


def _check_comparable(earlier: Run, run: Run) -> None:
    """Check that two runs have objectives, data and splits in common, and the device that measured an objective.

    A search and its finals have val and test in common, also where the finals train on more images.
    """
    here, there = run.study, earlier.study
    if set(here.objectives) != set(there.objectives):
        _refuse(earlier, run, "objectives", ",".join(there.objectives), ",".join(here.objectives))
    is_one_search = _search_of(here) is not None and _search_of(here) == _search_of(there)
    if here.data_fingerprint != there.data_fingerprint and not is_one_search:
        _refuse(earlier, run, "data", *(f"{study.data} ({study.data_fingerprint})" for study in (there, here)))
    for field in Splitting.model_fields:
        before, now = getattr(there.splitting, field), getattr(here.splitting, field)
        if before != now and not (is_one_search and field == "images_per_class"):
            _refuse(earlier, run, f"splitting.{field}", before, now)
    devices = [other.record.notes.device for other in (earlier, run)]
    if here.goals.measured and None not in devices and devices[0] != devices[1]:
        _refuse(earlier, run, "device", devices[0], devices[1])


def _search_of(study: Study) -> str | None:
    """The identity of the search that a study is, or whose finals it trains."""
    return study.identity if study.finals is None else study.finals.search


def _refuse(earlier: Run, run: Run, field: str, before: object, now: object) -> None:
    """Say which field of two runs must be equal, and is not."""
    raise UserError(
        f"{field}: must be {one_line(str(before), 60)}, as {one_line(earlier.name, 40)} has it, "
        f"got {one_line(str(now), 60)} in {one_line(run.name, 40)}; such runs cannot be compared"
    )


def _flat(study: Study) -> dict[str, object]:
    """The settings of a study by the paths of their fields."""
    found: dict[str, object] = {}

    def add(value: object, path: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                add(inner, f"{path}.{key}" if path else str(key))
        else:
            found[path] = value

    left_out: dict[str, bool | dict[str, bool]] = {**dict.fromkeys(_NOT_SETTINGS, True), "prior": {"models": True}}
    add(study.model_dump(mode="json", exclude=left_out), "")
    return found
