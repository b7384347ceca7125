"""Learning curves of every architecture of a space, from those that a run has recorded.

An architecture that was trained has its own curve; where training stopped early, its rest is predicted from the trials
that went to their end. Others have the curve that a random forest predicts from their genes and costs. A forest is no
sampler's own model (`exact_cost` has a Gaussian process), so that none is judged by itself.

Errors are on the logit scale: log(e / (1 - e)). G architectures, E epochs, D features.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import kendalltau

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from metaformer.errors import UserError
from nas.execution.curves import Curve
from nas.record.replicates import by_architecture, mean_trial
from nas.record.run_folder import Run
from nas.record.trials import LeaseEnd, TrialRecord, TrialState
from nas.session.cost_model import CostModel
from nas.session.forecast import fit_speed
from nas.session.proposers.catalogue import Catalogue
from nas.session.proposers.exact_cost import exact_costs
from nas.study.lease import Speed
from nas.study.objectives import Objectives
from search_spaces.space import SearchSpace

Floats = NDArray[np.float64]
FEWEST = 12  # complete architectures from which anything is predicted
_LEAST = 1e-4  # error, whose logit is taken
_NUM_TREES = 100
_NUM_FOLDS = 5


class PredictedCurves:
    """Curves that were recorded, and a prediction for every other architecture; `Curves` for the simulator.

    Attributes:
        num_complete: Architectures that were trained to the end.
        num_stopped: Others of which a part of the curve is known.
        architectures: All of these, those that were trained to the end first.
        num_images: By split.
        speed: Seconds to train on an image, fitted to what the trainings took.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Objectives,
        *,
        whole: "Sequence[Recorded]",
        partial: "Sequence[Recorded]" = (),
        epochs: int,
        num_images: Mapping[str, int],
    ) -> None:
        """Fit nothing but the speed yet.

        Args:
            whole: Trainings that went to the end, of different architectures.
            partial: Trainings of others.

        Raises:
            UserError: No time is known.
        """
        recorded = [*whole, *partial]
        self.num_complete, self.num_stopped = len(whole), len(partial)
        self.num_images = dict(num_images)
        self._known = Catalogue(space, exact_costs(objectives))
        self.architectures = [own.architecture for own in recorded]
        self._logits_GE = _extended([_logits(own) for own in whole], [_logits(own) for own in partial], epochs)
        self._place = {arch.digest: place for place, arch in enumerate(self.architectures)}
        self._epoch_seconds = {own.architecture.digest: own.epoch_seconds for own in recorded}
        self.speed, self._costs = self._fit_speed()
        self._predicted: dict[str, Curve] = {}

    def is_recorded(self, arch: Architecture) -> bool:
        """Whether the run trained it, if only in part."""
        return arch.digest in self._place

    def curve(self, architecture: Architecture) -> Curve:
        digest = architecture.digest
        if digest not in self._predicted:
            if digest in self._place:
                logits_E, seconds = self._logits_GE[self._place[digest]], self._epoch_seconds[digest]
            else:
                [logits_E] = self._forest.predict(self._features([architecture]))
                seconds = None
            seconds = seconds or self._costs.train_seconds(count_cost(architecture).macs, epochs=1)
            self._predicted[digest] = Curve(seconds, tuple((1 - expit(logits_E)).tolist()))
        return self._predicted[digest]

    @property
    def trial_seconds(self) -> float:
        """Mean device-seconds of a training to the end."""
        return fmean(self.curve(arch).epoch_seconds for arch in self.architectures) * self._logits_GE.shape[1]

    @cached_property
    def errors(self) -> tuple[float, float]:
        """How well the forest predicts the last accuracy of complete architectures that were left out, five folds.

        Mean absolute error in percentage points, and Kendall's tau; stopped ones are always in the fit.
        """
        from sklearn.model_selection import KFold  # takes a second, which --help does not wait for

        x_GD, predicted = self._features(self.architectures), np.empty(self.num_complete)
        rest = np.arange(self.num_complete, len(self.architectures))
        for train, test in KFold(_NUM_FOLDS, shuffle=True, random_state=0).split(x_GD[: self.num_complete]):
            used = np.concatenate([train, rest])
            predicted[test] = self._fit(used).predict(x_GD[test])[:, -1]
        true = self._logits_GE[: self.num_complete, -1]
        return 100 * float(np.abs(expit(predicted) - expit(true)).mean()), float(kendalltau(predicted, true).statistic)

    @cached_property
    def _forest(self) -> "_Forest":
        return self._fit(np.arange(len(self.architectures)))

    def _fit(self, used: NDArray[np.int64]) -> "_Forest":
        x_GD = self._features([self.architectures[place] for place in used])
        return _Forest(x_GD, self._logits_GE[used], num_costs=self._known.num_costs)

    def _features(self, archs: Sequence[Architecture]) -> Floats:
        return self._known.features(np.array([self._known.row_of(arch) for arch in archs], dtype=np.int64))

    def _fit_speed(self) -> tuple[Speed, CostModel]:
        unit = CostModel(Speed(base=1.0, per_gmac=0.0), self.num_images).train_seconds(0, epochs=1)  # images an epoch
        timed = [(arch, seconds / unit) for arch in self.architectures if (seconds := self._epoch_seconds[arch.digest])]
        if not timed:
            raise UserError("run: must have trials that no worker lost, to know what an epoch takes, got none")
        speed = fit_speed([arch for arch, _ in timed], [seconds for _, seconds in timed])
        return speed, CostModel(speed, self.num_images)


class Recorded(NamedTuple):
    """What is known of one architecture."""

    architecture: Architecture
    val_accuracies: Sequence[float]  # after each epoch
    epoch_seconds: float | None  # None: it is not known


class RunCurves(PredictedCurves):
    """The curves of a run."""

    def __init__(self, run: Run) -> None:
        """Read the trials.

        Raises:
            UserError: There are too few, or the study is of another kind.
        """
        study = run.study
        if study.finals is not None:
            raise UserError("run: must be a search, got trainings of its finals")
        if study.goals.measured:
            measured = ",".join(objective.name for objective in study.goals.measured)
            raise UserError(f"objectives: must all be known exactly but accuracy for a replay, got {measured}")
        groups = by_architecture(trial for trial in run.record if trial.progress.curve)
        complete = [group for group in groups if any(trial.state is TrialState.COMPLETE for trial in group)]
        if len(complete) < FEWEST:
            raise UserError(f"run: must have {FEWEST} complete architectures at least, got {len(complete)}")
        if run.record.notes.num_images is None:
            raise UserError("run: must have noted how many images it trains on, got none")
        whole = [mean_trial([t for t in group if t.state is TrialState.COMPLETE]) for group in complete]
        partial = [
            max(group, key=lambda trial: trial.num_epochs)
            for group in groups
            if all(trial.state is not TrialState.COMPLETE for trial in group)
        ]
        super().__init__(
            run.space,
            study.goals,
            whole=[_recorded(trial) for trial in whole],
            partial=[_recorded(trial) for trial in partial],
            epochs=study.recipe.epochs,
            num_images=run.record.notes.num_images,
        )


class _Forest:
    """Logits of the errors after each epoch: a plane over the costs, and randomised trees on what it leaves.

    The trees are those of Geurts, Ernst and Wehenkel (2006). Nothing beyond the range of the fit is predicted.
    """

    def __init__(self, x_GD: Floats, y_GE: Floats, *, num_costs: int) -> None:
        from sklearn.ensemble import ExtraTreesRegressor  # takes a second, which --help does not wait for

        self._num_costs = num_costs  # the last features
        self._least_E, self._most_E = y_GE.min(axis=0), y_GE.max(axis=0)
        self._plane = np.linalg.lstsq(self._costs(x_GD), y_GE, rcond=None)[0]
        trees = ExtraTreesRegressor(_NUM_TREES, min_samples_leaf=2, random_state=0)
        self._trees = trees.fit(x_GD, y_GE - self._costs(x_GD) @ self._plane)

    def predict(self, x_MD: Floats) -> Floats:
        x_32 = x_MD.astype(np.float32)  # as the trees have it; one at a time, since a forest takes ten times as long
        left = np.mean([tree.tree_.predict(x_32) for tree in self._trees.estimators_], axis=0).reshape(len(x_MD), -1)
        found: Floats = np.clip(self._costs(x_MD) @ self._plane + left, self._least_E, self._most_E)
        return found

    def _costs(self, x_MD: Floats) -> Floats:
        return np.column_stack([np.ones(len(x_MD)), x_MD[:, -self._num_costs :]])


def _recorded(trial: TrialRecord) -> Recorded:
    accuracies = [report.val_accuracy for report in trial.progress.curve]
    return Recorded(trial.architecture, accuracies, _epoch_seconds(trial))


def _logits(recorded: Recorded) -> Floats:
    """Logits of the errors after the epochs that are known."""
    errors = 1 - np.array(recorded.val_accuracies)
    return np.asarray(logit(np.clip(errors, _LEAST, 1 - _LEAST)), dtype=np.float64)


def _extended(whole: Sequence[Floats], partial: Sequence[Floats], epochs: int) -> Floats:
    """All curves at full length: each later epoch of a partial one by a line through those of the whole ones."""
    whole_GE = np.array([curve[:epochs] for curve in whole])
    rows = [whole_GE]
    for curve in partial:
        then_G = whole_GE[:, len(curve) - 1]
        centred_G = then_G - then_G.mean()
        spread = float(centred_G @ centred_G)
        slope_E = np.clip(centred_G @ whole_GE / spread if spread else np.ones(whole_GE.shape[1]), 0, 1)
        rest_E = whole_GE.mean(axis=0) + slope_E * (curve[-1] - then_G.mean())
        rows.append(np.concatenate([curve, rest_E[len(curve) :]])[None])
    return np.concatenate(rows)


def _epoch_seconds(trial: TrialRecord) -> float | None:
    """Device-seconds of an epoch; None where the trial's charge is not that of its curve alone."""
    leases = trial.progress.leases
    is_own = trial.checkpoint_trial == trial.number
    if not is_own or any(lease.end in (LeaseEnd.LOST, LeaseEnd.NODE_LOST, LeaseEnd.FAILED) for lease in leases):
        return None
    return trial.device_seconds / trial.num_epochs or None
