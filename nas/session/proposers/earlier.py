"""What an earlier search says of the errors in this one, and how far it is believed.

n architectures. An earlier error is in standard deviations of the earlier search's logarithms of the error, from their
mean, so that the level of its accuracies says nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import moocore
import numpy as np
from scipy.stats import kendalltau

from nas.record.trials import TrialRecord
from nas.session.proposers.catalogue import Catalogue, Floats, Rows
from nas.session.proposers.gaussian_process import POINTS_TO_FIT, GaussianProcess, fit, thinned
from nas.study.objectives import ExactObjective, Objectives
from nas.study.prior import FEWEST_MODELS, Prior
from search_spaces.space import SearchSpace

LEAST_ERROR = 1e-4  # whose logarithm is taken
_SLOPE = 0.5  # prior mean of the slope
_WORTH = 4.0  # trials that the prior mean counts as
_SMALL, _ONE_SIDED = 0.3, 1.2816  # a correlation that is worth little, and the normal quantile of 90 %


class Earlier:
    """A Gaussian process on the errors that an earlier search has seen.

    Attributes:
        front: Rows of the architectures that no other of that search dominates.
    """

    def __init__(self, known: Catalogue, prior: Prior) -> None:
        """Fit the model; the catalogue gets rows for the earlier architectures."""
        self._known = known
        rows = np.array([known.row(model.genes) for model in prior.models], dtype=np.int64)
        errors = np.log([max(1 - model.val_accuracy, LEAST_ERROR) for model in prior.models])
        errors = (errors - errors.mean()) / max(float(errors.std()), 1e-3)
        is_best = moocore.is_nondominated(np.column_stack([known.positions(rows), errors]))
        self.front: Rows = rows[is_best]
        x_nd = known.features(rows)
        chosen = thinned(len(rows), np.flatnonzero(is_best).tolist(), POINTS_TO_FIT)
        parameters = fit(x_nd[chosen], errors[chosen], known.groups)
        self._process = GaussianProcess(parameters, known.groups, x_nd, errors)

    def errors(self, rows: Rows) -> Floats:
        """What is expected of architectures, (n,)."""
        return self._process.predict(self._known.features(rows))[0]


def slope(earlier: Floats, errors: Floats) -> float:
    """How much of a difference in the earlier errors is expected again; 0 where they do not agree.

    The mean of a normal regression with a prior that counts as a few trials, and not below 0.

    Args:
        earlier: Of n architectures, (n,).
        errors: Their logarithms of the error here, (n,).
    """
    std = max(float(errors.std()), 1e-3)
    x, y = earlier - earlier.mean(), (errors - errors.mean()) / std
    return std * max(0.0, float(x @ y + _WORTH * _SLOPE) / float(x @ x + _WORTH))


def does_agree(earlier: Floats, errors: Floats) -> bool:
    """Whether the correlation of n earlier errors with those here is surely (90 %, by Fisher's z) not small."""
    if len(errors) < FEWEST_MODELS or earlier.std() < 1e-9 or errors.std() < 1e-9:
        return False
    z = np.arctanh(np.clip(np.corrcoef(earlier, errors)[0, 1], -0.999, 0.999))
    return bool(z - _ONE_SIDED / np.sqrt(len(errors) - 3) > np.arctanh(_SMALL))


class Agreement(NamedTuple):
    """How an earlier search and this one order architectures."""

    tau: float  # Kendall's, between what was expected and what came
    num_trials: int


def agreement(
    space: SearchSpace, objectives: Objectives, prior: Prior, complete: Sequence[TrialRecord]
) -> Agreement | None:
    """Of the complete trials of a search; None where they are too few to say."""
    if len(complete) < FEWEST_MODELS:
        return None
    known = Catalogue(space, [each for each in objectives if isinstance(each, ExactObjective)])
    rows = np.array([known.row_of(trial.architecture) for trial in complete], dtype=np.int64)
    errors = [1 - (trial.val_accuracy or 0.0) for trial in complete]
    return Agreement(float(kendalltau(Earlier(known, prior).errors(rows), errors).statistic), len(complete))
