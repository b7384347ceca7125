"""How sure a run's accuracies are, and with them its front: intervals, probabilities, and what to expect on test.

Validation accuracy is that of one training on one small split. This model separates it from the accuracy that the
architecture has in the mean over seeds and over all images. Accuracies are on the logit scale, log(a / (1 - a)), on
which errors are nearly normal. For architecture g of costs x_g, trained r_g times, with mean logit y_g:

    y_g = theta_g + d_g + e_g + mean of r_g seed effects                                      (1)
    theta_g ~ N(x_g beta, tau²)               true logits, around a regression on log costs   (2)
    v_g = 1 / (m p_g (1 - p_g))               variance of a split of m images, delta method   (3)
    d_g = sqrt(rho v_g) xi,  xi ~ N(0, 1)     part of its error that all models share         (4)
    e_g ~ N(0, (1 - rho) v_g)                 part of its error that each has alone           (5)
    seed effect ~ N(0, sigma²)                equal on the logit scale for all architectures  (6)

(1), (2) and the known variances are the hierarchical normal model of Gelman et al., Bayesian Data Analysis, 3rd
edition, section 5.4; tau and sigma are integrated on a grid (eq. 5.21 there, with a regression), beta by normal draws,
theta in closed form (eq. 5.17). The regression makes it an empirical Bayes estimate: trials at the top are there partly
by luck and are drawn towards what their costs suggest. Without that, the best of many would look better than it is.

Where few images are wrong, the binomial likelihood is skewed. So z = logit(a) is replaced by the working response at
the logit eta of the accuracy p that a trial's weights are believed to have, which makes (3) the curvature there; a few
passes find the mode (Breslow and Clayton, 1993):

    z = eta + (a - p) / (p (1 - p))                                                           (7)

rho is 0.3: models that are validated on one split err on the same images, far more often than independent ones would
(arXiv:1905.12580). The same xi moves all accuracies, so nothing tells it, and it all but cancels in comparisons of
models that are about as good. The regression has no squares: a search fills the middle of the costs with changed
members of its front, and a parabola would then bend away from the dearest models.

sigma has a prior: median 0.05, and a factor of two either way is one standard deviation. 0.05 are 0.8 points at 80 %,
0.45 at 90 % and 0.05 at 99 %; Picard (arXiv:2109.08203) saw about half of that on CIFAR-10, but searches train for
fewer epochs. Where an architecture has several complete trials, their spread adds its likelihood. That spread holds in
part what (5) holds already (arXiv:2304.01910), so the sum is rather too large. tau has a prior of the same form around
0.25, which is about 2 points at 90 %.

N trials, G distinct architectures, C costs, P columns of the regression, K nodes of the grid of tau and sigma,
H hyperparameters drawn of it, S draws of all true accuracies.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, ndtri

from nas.record.replicates import by_architecture
from nas.record.trials import TrialRecord
from nas.study.objectives import ACCURACY, Objectives

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CLEAR = 0.9  # from this probability on one model is said to dominate another; down to 1 - CLEAR they are tied
SEED_SD = 0.05  # median of the prior of sigma
_SEED_FACTOR = 2.0  # one standard deviation of the prior of log sigma is the log of it
SHARED = 0.3  # rho
_SPREAD, _SPREAD_FACTOR = 0.25, 2.0  # the same of tau
_TOTALS = (0.01, 4.0)  # least and most (tau² + sigma²) ** 0.5 of the grid
_NUM_TOTALS = 16
_ANGLES = np.geomspace(0.01, 1.55, 10)  # of the grid: sigma / tau is the tangent
_INTERCEPT_SD, _SLOPE_SD = 100.0, 2.0  # of the priors of beta, for standardised log costs
_UNLIKELY = 1e-4  # density of a node, beside the likeliest, below which the finer grid leaves it out
_NUM_PASSES = 4  # of eq. 7
_LEAST = 0.25  # images that are wrong in the mean, at least; also right
_MOST_FITTED = 1000  # architectures from which tau, sigma and beta are learned
_NUM_HYPER, _NUM_EACH = 128, 16  # H, and how many of the S draws use each
_NORMAL_95 = 1.6448536269514722  # normal quantile of a two-sided interval of 90 %
_FAR = 4.0  # standard deviations behind a cheaper trial at which membership is out of the question
_FIRST_RIVALS = 16  # that are looked at first, since they leave few draws
_MOST_NEAR, _MOST_RIVALS = 2048, 128  # trials whose membership is drawn, and rivals that each of them meets
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(11)


@dataclass(frozen=True)
class Estimate:
    """What is believed of a trial; accuracies lie in [0, 1]."""

    low: float  # end of the interval that holds its architecture's true accuracy with probability 0.9
    high: float
    expected: float  # mean true accuracy of its architecture, over seeds and all images
    expected_test: float  # mean accuracy of its own weights on new images
    p_on_front: float  # probability that no other trial dominates it, by true accuracy and costs


@dataclass(frozen=True)
class Hyperparameters:
    """H draws of what all architectures have in common, given what was seen."""

    beta_HP: Floats
    centre: float  # of the logits; the regression is of what they differ from it
    tau_H: Floats
    sigma_H: Floats
    xi_H: Floats  # error that all share, in its standard deviations

    @property
    def seed_sd(self) -> float:
        """Median standard deviation between seeds, on the logit scale."""
        return float(np.median(self.sigma_H))


@dataclass(frozen=True)
class Posterior:
    """True logits of G architectures: for each of H hyperparameters a normal distribution.

    Attributes:
        mean_HG: Means.
        var_HG: Variances.
        error_G: Mean own error on the split (e in eq. 5), given what was seen.
        error_var_G: Its variance, and that of the shared error (d in eq. 4).
        own_N: Mean logits of the accuracy that the weights of each of the N trials have on all images.
        hyper: The hyperparameters.
        seed: Of the draws.
    """

    mean_HG: Floats
    var_HG: Floats
    error_G: Floats
    error_var_G: Floats
    hyper: Hyperparameters
    seed: int
    own_N: Floats

    @cached_property
    def mean(self) -> Floats:
        """Posterior means of the logits, of shape (G,)."""
        mean_G: Floats = self.mean_HG.mean(axis=0)
        return mean_G

    @cached_property
    def sd(self) -> Floats:
        """Their standard deviations, of shape (G,), hyperparameters' and the shared error's included."""
        sd_G: Floats = np.sqrt(self.var_HG.mean(axis=0) + self.mean_HG.var(axis=0))
        return sd_G

    def interval(self) -> tuple[Floats, Floats]:
        """Ends of the central 90 % intervals of the true accuracies, each of shape (G,)."""
        return expit(self.mean - _NORMAL_95 * self.sd), expit(self.mean + _NORMAL_95 * self.sd)

    def p_greater(self, first_M: Ints, second: int) -> Floats:
        """Probability that each of M architectures is more accurate than another one; 0 for that one itself."""
        gap_HM = self.mean_HG[:, first_M] - self.mean_HG[:, [second]]
        p_M = ndtr(gap_HM / np.sqrt(self.var_HG[:, first_M] + self.var_HG[:, [second]])).mean(axis=0)
        return np.where(first_M == second, 0.0, p_M)

    def draw(self, architectures: Iterable[int]) -> NDArray[np.float32]:
        """S joint draws of the true logits of some architectures, one row for each; the same at every call."""
        rows = [self._drawn[g] if g in self._drawn else self._draw(g) for g in map(int, architectures)]
        return np.stack(rows) if rows else np.empty((0, _NUM_EACH * _NUM_HYPER), np.float32)

    @cached_property
    def _drawn(self) -> dict[int, NDArray[np.float32]]:
        """What has been drawn of single architectures."""
        return {}

    def _draw(self, g: int) -> NDArray[np.float32]:
        noise = np.random.default_rng((self.seed, g)).standard_normal((_NUM_EACH, _NUM_HYPER), dtype=np.float32)
        drawn_S = (self.mean_HG[:, g] + np.sqrt(self.var_HG[:, g]) * noise).astype(np.float32).ravel()
        return self._drawn.setdefault(g, drawn_S)


def fit(accuracy_N: Floats, costs_NC: Floats, group_N: Ints, *, num_images: int, seed: int = 0) -> Posterior:
    """What is known of the true accuracies of G architectures after N trainings (eqs. 1 to 6).

    Args:
        accuracy_N: Accuracies in [0, 1] on the validation split.
        costs_NC: Known without error.
        group_N: Of which architecture each trial is a training, from 0 to G - 1; none is left out.
        num_images: Images of the split.
        seed: Of the draws of the hyperparameters and, later, of the accuracies.
    """
    counts_G = np.bincount(group_N)
    x_GP, precision_P = _regressors(costs_NC[np.unique(group_N, return_index=True)[1]])
    used = np.unique(np.linspace(0, len(counts_G) - 1, min(len(counts_G), _MOST_FITTED)).astype(int))
    p_N = expit(_logits(accuracy_N, num_images))
    for _ in range(_NUM_PASSES):
        z_N = logit(p_N) + (accuracy_N - p_N) / (p_N * (1 - p_N))  # (eq. 7)
        y_G = np.bincount(group_N, z_N) / counts_G
        p_G = np.bincount(group_N, p_N) / counts_G
        v_G = 1 / (num_images * p_G * (1 - p_G))  # (eq. 3)
        spread = float(((z_N - y_G[group_N]) ** 2).sum()), len(group_N) - len(y_G)
        hyper = _draw_hyperparameters(
            y_G[used], v_G[used], counts_G[used], x_GP[used], precision_P, spread=spread, seed=seed
        )
        posterior = _condition(y_G, v_G, counts_G, x_GP, hyper, seed=seed)
        p_N = expit(z_N - posterior.error_G[group_N]).clip(_LEAST / num_images, 1 - _LEAST / num_images)
    return replace(posterior, own_N=z_N - posterior.error_G[group_N])


def _regressors(costs_GC: Floats) -> tuple[Floats, Floats]:
    """Columns of the regression, of shape (G, P), and the precisions of their coefficients' priors, of shape (P,)."""
    is_positive_C = (costs_GC > 0).all(axis=0)
    logs_GC = np.where(is_positive_C, np.log(np.where(is_positive_C, costs_GC, 1.0)), costs_GC)
    spread_C = logs_GC.std(axis=0)
    scaled_GC = (logs_GC - logs_GC.mean(axis=0)) / np.where(spread_C > 0, spread_C, 1.0)
    x_GP = np.column_stack([np.ones(len(scaled_GC)), scaled_GC])
    return x_GP, np.array([_INTERCEPT_SD, *[_SLOPE_SD] * scaled_GC.shape[1]]) ** -2.0


def _draw_hyperparameters(
    y_G: Floats,
    v_G: Floats,
    counts_G: Ints,
    x_GP: Floats,
    precision_P: Floats,
    *,
    spread: tuple[float, int],
    seed: int,
) -> Hyperparameters:
    """H draws of beta, tau and sigma, spread evenly over their posterior.

    Args:
        v_G: Variances of the split's error.
        counts_G: Trainings of each architecture.
        spread: Sum of squares between trainings of one architecture, and its degrees of freedom.
    """
    num_columns = x_GP.shape[1]
    centre = float(y_G.mean())
    r_G = y_G - centre
    own_G = (1 - SHARED) * v_G  # (eq. 5)
    products_GP = (x_GP[:, :, None] * x_GP[:, None, :]).reshape(len(y_G), -1)
    squares, freedom = spread
    low, high = _TOTALS
    for _ in range(2):  # the second time on a finer grid, where the posterior is
        total_K, angle_K = (grid.ravel() for grid in np.meshgrid(np.geomspace(low, high, _NUM_TOTALS), _ANGLES))
        sigma_K, tau_K = total_K * np.sin(angle_K), total_K * np.cos(angle_K)
        w_KG = 1 / (tau_K[:, None] ** 2 + own_G + sigma_K[:, None] ** 2 / counts_G)
        a_KPP = (w_KG @ products_GP).reshape(-1, num_columns, num_columns) + np.diag(precision_P)
        b_KP = (w_KG * r_G) @ x_GP
        beta_KP = np.linalg.solve(a_KPP, b_KP[..., None])[..., 0]
        misfit_K = w_KG @ r_G**2 - (b_KP * beta_KP).sum(axis=1)
        log_K = 0.5 * (np.log(w_KG).sum(axis=1) - np.linalg.slogdet(a_KPP)[1] - misfit_K)  # BDA3 eq. 5.21
        log_K += -freedom * np.log(sigma_K) - squares / (2 * sigma_K**2)
        log_K += -0.5 * (np.log(sigma_K / SEED_SD) / np.log(_SEED_FACTOR)) ** 2  # prior of log sigma
        log_K += -0.5 * (np.log(tau_K / _SPREAD) / np.log(_SPREAD_FACTOR)) ** 2  # prior of log tau
        log_K += np.log(angle_K / np.sin(angle_K) / np.cos(angle_K))  # from (log tau, log sigma) to the grid's own axes
        share_K = np.exp(log_K - log_K.max())
        step = (high / low) ** (1 / (_NUM_TOTALS - 1))
        likely_K = total_K[share_K > _UNLIKELY]
        low, high = likely_K.min() / step, likely_K.max() * step
    places = (np.arange(_NUM_HYPER) + 0.5) / _NUM_HYPER
    node_H = np.searchsorted(np.cumsum(share_K / share_K.sum()), places).clip(max=len(share_K) - 1)
    rng = np.random.default_rng((seed, len(y_G), num_columns))
    noise_HP = rng.standard_normal((_NUM_HYPER, num_columns))
    xi_H = rng.permutation(ndtri(places))
    roots_HPP = np.swapaxes(np.linalg.cholesky(a_KPP[node_H]), 1, 2)
    beta_HP = beta_KP[node_H] + np.linalg.solve(roots_HPP, noise_HP[..., None])[..., 0]
    return Hyperparameters(beta_HP, centre, tau_K[node_H], sigma_K[node_H], xi_H)


def _condition(
    y_G: Floats, v_G: Floats, counts_G: Ints, x_GP: Floats, hyper: Hyperparameters, *, seed: int
) -> Posterior:
    """True logits given hyperparameters (BDA3 eq. 5.17), and what of each mean logit was the split's error."""
    own_G = (1 - SHARED) * v_G  # (eq. 5)
    prior_HG = hyper.centre + hyper.beta_HP @ x_GP.T
    tau2_H1 = hyper.tau_H[:, None] ** 2
    total_HG = tau2_H1 + own_G + hyper.sigma_H[:, None] ** 2 / counts_G
    surprise_HG = (y_G - prior_HG) / total_HG
    error_HG = own_G * surprise_HG
    shared_HG = np.sqrt(SHARED * v_G) * hyper.xi_H[:, None]  # (eq. 4)
    error_var_G = SHARED * v_G + (own_G * (1 - own_G / total_HG)).mean(axis=0) + error_HG.var(axis=0)
    return Posterior(
        mean_HG=prior_HG + tau2_H1 * surprise_HG - shared_HG,
        var_HG=tau2_H1 * (1 - tau2_H1 / total_HG),
        error_G=error_HG.mean(axis=0),
        error_var_G=error_var_G,
        hyper=hyper,
        seed=seed,
        own_N=np.empty(0),
    )


def membership(posterior: Posterior, costs_NC: Floats, group_N: Ints) -> Floats:
    """The probability that each of N trials is on the front of true accuracy and costs, of shape (N,).

    A trial is on it if every trial of another architecture that costs no more in anything is less accurate. Trials of
    one architecture are equally accurate, so equal ones stay together. It is drawn for the trials that are less than
    four standard deviations behind all others, at most 2,048, against rivals that are less than four behind them; for
    the rest it is the bound that their strongest rival sets.

    Args:
        costs_NC: Less is better; without error.
        group_N: The architecture of each trial.
    """
    mean_N, var_N = posterior.mean[group_N], posterior.sd[group_N] ** 2
    behind_N = np.full(len(group_N), -np.inf)
    for i in np.flatnonzero(moocore.is_nondominated(np.column_stack([-mean_N, costs_NC]))):
        beaten = (costs_NC[i] <= costs_NC).all(axis=1) & (group_N != group_N[i])
        gap_N = (mean_N[i] - mean_N[beaten]) / np.sqrt(var_N[i] + var_N[beaten])
        behind_N[beaten] = np.maximum(behind_N[beaten], gap_N)
    p_N: Floats = ndtr(-behind_N)
    near = np.flatnonzero(behind_N < _FAR)
    near = near[np.argsort(behind_N[near], kind="stable")[:_MOST_NEAR]]
    near = near[np.argsort(-mean_N[near], kind="stable")]  # the most accurate first, so that rivals are in that order
    unique, row_K = np.unique(group_N[near], return_inverse=True)
    theta_US = posterior.draw(unique)
    costs_KC, mean_K, var_K, groups_K = costs_NC[near], mean_N[near], var_N[near], group_N[near]
    no_more_KK = np.logical_and.reduce([costs_K <= costs_K[:, None] for costs_K in costs_KC.T])  # column's than row's
    is_other_KK = groups_K != groups_K[:, None]
    less_KK = no_more_KK & ~no_more_KK.T
    gap_KK, var_KK = (of_K.astype(np.float32) for of_K in (mean_K, var_K))
    gap_KK, var_KK = gap_KK - gap_KK[:, None], var_KK + var_KK[:, None]
    may_win_KK = (gap_KK > 0) | (gap_KK**2 < _FAR**2 * var_KK)
    is_rival_KK = no_more_KK & is_other_KK & may_win_KK
    for k, i in enumerate(near):
        rivals = row_K[np.flatnonzero(is_rival_KK[k])[:_MOST_RIVALS]]
        p_N[i] = _share_above(theta_US, int(row_K[k]), rivals)
    p_N[near[(less_KK & ~is_other_KK).any(axis=1)]] = 0.0  # the same architecture, measured as cheaper
    return p_N


def _share_above(theta_US: NDArray[np.float32], own: int, rivals: Ints) -> float:
    """In which share of S draws one of U architectures is above all rivals, the most accurate of which come first."""
    first, others = rivals[:_FIRST_RIVALS], rivals[_FIRST_RIVALS:]
    left = np.flatnonzero(theta_US[own] > theta_US[first].max(axis=0, initial=-np.inf))
    if len(left) and len(others):
        left = left[theta_US[own, left] > theta_US[others[:, None], left].max(axis=0)]
    return len(left) / theta_US.shape[1]


def mean_accuracy(mean_N: Floats, var_N: Floats) -> Floats:
    """Mean accuracies in [0, 1] whose logits are normal with these means and variances, by Gauss-Hermite quadrature."""
    points = expit(np.asarray(mean_N)[..., None] + np.sqrt(var_N)[..., None] * _NODES)
    accuracy_N: Floats = points @ (_WEIGHTS / _WEIGHTS.sum())
    return accuracy_N


def expected_on_test(posterior: Posterior, group_N: Ints) -> Floats:
    """Mean accuracies in [0, 1], of shape (N,), that the weights of N trials are expected to have on new images.

    What an accuracy owes to the split (e in eq. 5) is lost there; what it owes to its seed stays.

    Args:
        group_N: As `fit` was given it.
    """
    return mean_accuracy(posterior.own_N, posterior.error_var_G[group_N])


class Uncertainty:
    """How sure the accuracies of a run's complete trials are.

    Attributes:
        num_val: Images of the validation split.
        num_replicates: Trials beyond the first of their architecture, from which the spread between seeds is learned.
    """

    def __init__(
        self,
        trials: Sequence[TrialRecord],
        objectives: Objectives,
        *,
        num_val: int,
        seed: int = 0,
        settings: Sequence[int] | None = None,
    ) -> None:
        """Estimate everything that is said of single trials.

        Args:
            trials: Complete ones.
            num_val: Images of the validation split.
            seed: Of the draws.
            settings: How each trial was trained, such as the number of its recipe; those of one architecture are
                replicates within a setting alone. None: all alike.
        Raises:
            ValueError: There are no trials or images.
        """
        if not trials or num_val < 1:
            raise ValueError(f"trials, num_val: must be at least one, got {len(trials)} and {num_val}")
        points = np.array([objectives.values(trial) for trial in trials])
        is_accuracy = np.array(objectives.names) == ACCURACY
        self.num_val = num_val
        self._row = {trial.number: row for row, trial in enumerate(trials)}
        self._accuracy_N: Floats = points[:, is_accuracy][:, 0]
        self._costs_NC: Floats = (points * np.where(objectives.is_maximised, -1.0, 1.0))[:, ~is_accuracy]
        self._group_N = _architectures(trials, settings or [0] * len(trials))
        self.num_replicates = len(trials) - int(self._group_N.max()) - 1
        self._posterior = fit(self._accuracy_N, self._costs_NC, self._group_N, num_images=num_val, seed=seed)
        self._estimates = self._estimate_all()

    @classmethod
    def of(cls, trials: Sequence[TrialRecord], objectives: Objectives, num_val: int | None) -> Self | None:
        """The same; None where no trial is complete, or the number of validation images is not known."""
        return cls(trials, objectives, num_val=num_val) if trials and num_val else None

    @property
    def seed_sd(self) -> float:
        """Standard deviation between seeds on the logit scale; times a (1 - a) it is that of an accuracy a."""
        return self._posterior.hyper.seed_sd

    def estimate(self, trial: TrialRecord) -> Estimate:
        """What is believed of one of the trials."""
        return self._estimates[self._row[trial.number]]

    def p_dominates(self, others: Sequence[TrialRecord], trial: TrialRecord) -> list[float]:
        """For each of some other trials, the probability that it costs no more and is more accurate than a trial.

        Accuracy is that of the architectures, so no trial dominates another one of its own architecture.
        """
        rows, own = np.array([self._row[other.number] for other in others], dtype=np.int64), self._row[trial.number]
        costs_no_more = (self._costs_NC[rows] <= self._costs_NC[own]).all(axis=1)
        p_M = np.zeros(len(rows))
        p_M[costs_no_more] = self._posterior.p_greater(self._group_N[rows[costs_no_more]], int(self._group_N[own]))
        return p_M.tolist()

    def p_dominates_each(self, trial: TrialRecord, others: Sequence[TrialRecord]) -> list[float]:
        """The same the other way round: the probability that a trial costs no more and is more accurate than each."""
        rows, own = np.array([self._row[other.number] for other in others], dtype=np.int64), self._row[trial.number]
        groups_M, group = self._group_N[rows], int(self._group_N[own])
        can = (self._costs_NC[own] <= self._costs_NC[rows]).all(axis=1) & (groups_M != group)
        p_M: Floats = np.where(can, 1 - self._posterior.p_greater(groups_M, group), 0.0)
        return p_M.tolist()

    def p_dominated(
        self, trial: TrialRecord, *, by: Sequence[TrialRecord], each: Sequence[float] | None = None
    ) -> float:
        """Probability that at least one of some other trials dominates a trial.

        Args:
            each: What `p_dominates` says of them, where that is known.
        """
        p_M = np.array(self.p_dominates(by, trial) if each is None else each)
        own = int(self._group_N[self._row[trial.number]])
        likeliest = np.argsort(-p_M, kind="stable")[:_MOST_RIVALS]
        likeliest = likeliest[p_M[likeliest] > 0]
        if not len(likeliest):
            return 0.0
        theta_RS = self._posterior.draw([own, *(self._group_N[self._row[by[i].number]] for i in likeliest)])
        return max(float((theta_RS[1:].max(axis=0) > theta_RS[0]).mean()), float(p_M.max()))

    def expected_drop(self, trials: Sequence[TrialRecord]) -> float:
        """By how much the mean accuracy of some trials' own weights is expected to fall from val to test, in [0, 1]."""
        return self._excess(trials, [self.estimate(trial).expected_test for trial in trials])

    def optimism(self, trials: Sequence[TrialRecord]) -> float:
        """By how much some trials' mean val accuracy exceeds what other seeds are expected to reach on test."""
        return self._excess(trials, [self.estimate(trial).expected for trial in trials])

    def _excess(self, trials: Sequence[TrialRecord], expected: Sequence[float]) -> float:
        seen = [self._accuracy_N[self._row[trial.number]] for trial in trials]
        return float(np.mean(seen) - np.mean(expected)) if seen else 0.0

    def _estimate_all(self) -> list[Estimate]:
        posterior, group_N = self._posterior, self._group_N
        low_G, high_G = posterior.interval()
        expected_G = mean_accuracy(posterior.mean, posterior.sd**2)
        test_N = expected_on_test(posterior, group_N)
        p_N = membership(posterior, self._costs_NC, group_N)
        columns = (low_G[group_N], high_G[group_N], expected_G[group_N], test_N, p_N)
        return [Estimate(*row) for row in np.column_stack(columns).tolist()]


def _logits(accuracy_N: Floats, num_images: int) -> Floats:
    """Logits of accuracies that were counted on some images, finite also at 0 and 1 (Gart and Zweifel, 1967)."""
    right_N = accuracy_N * num_images
    logit_N: Floats = np.log((right_N + 0.5) / (num_images - right_N + 0.5))
    return logit_N


def _architectures(trials: Sequence[TrialRecord], settings: Sequence[int]) -> Ints:
    """Architecture and setting of each trial as a number from 0 on."""
    places = {id(trial): place for place, trial in enumerate(trials)}
    numbers: dict[tuple[int, int], int] = {}
    found = np.empty(len(trials), dtype=np.int64)
    for group_number, group in enumerate(by_architecture(trials)):
        for trial in group:
            place = places[id(trial)]
            found[place] = numbers.setdefault((settings[place], group_number), len(numbers))
    return found
