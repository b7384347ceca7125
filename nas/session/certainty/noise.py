"""How far accuracies on val may be trusted: what is believed of the true ones, given all that was trained.

Validation accuracy is that of one training on one small split. This model separates it from the accuracy that the
architecture has in the mean over seeds and over all images. Accuracies are on the logit scale, log(a / (1 - a)), on
which errors are nearly normal. For architecture g of costs x_g, whose r-th training has the logit z_gr:

    z_gr = theta_g + d_g + e_g + f_gr + s_gr                                                  (1)
    theta_g ~ N(x_g beta, tau²)               true logits, around a regression on log costs   (2)
    v_g = 1 / (m p_g (1 - p_g))               variance of a split of m images, delta method   (3)
    d_g = sqrt(rho v_g) xi,  xi ~ N(0, 1)     part of its error that all models share         (4)
    e_g ~ N(0, (1 - kappa) (1 - rho) v_g)     part that all trainings of g share              (5)
    f_gr ~ N(0, kappa (1 - rho) v_g)          part that each training has alone               (6)
    s_gr ~ N(0, sigma²)                       effect of the seed, alike for all architectures (7)

(1), (2) and the known variances are the hierarchical normal model of Gelman et al., Bayesian Data Analysis, 3rd
edition, section 5.4; tau and sigma are integrated on a grid (eq. 5.21 there, with a regression), beta by normal draws,
theta in closed form (eq. 5.17). The regression makes it an empirical Bayes estimate: trials at the top are there partly
by luck and are drawn towards what their costs suggest. Without that, the best of many would look better than it is.

Where few images are wrong, the binomial likelihood is skewed. So z = logit(a) is replaced by the working response at
the logit eta of the accuracy p that a trial's weights are believed to have, which makes (3) the curvature there; a few
passes find the mode (Breslow and Clayton, 1993):

    z = eta + (a - p) / (p (1 - p))                                                           (8)

rho is 0.3: models that are validated on one split err on the same images, far more often than independent ones would
(arXiv:1905.12580). The same xi moves all accuracies, so nothing tells it, and it all but cancels in comparisons of
models that are about as good. kappa is 0.75: much of the spread between seeds on one split is chance in its images, and
not in the accuracy of the weights (arXiv:2304.01910), and models that are trained alike err alike whatever their
architecture (arXiv:2110.12899), so little is left that the trainings of one architecture alone share. A mean over seeds
therefore has less of the split's error as well. The regression has no squares: a search fills the middle of the costs
with changed members of its front, and a parabola would then bend away from the dearest models.

sigma has a prior: median 0.05, and a factor of two either way is one standard deviation. 0.05 are 0.8 points at 80 %,
0.45 at 90 % and 0.05 at 99 %; Picard (arXiv:2109.08203) saw about half of that on CIFAR-10, but searches train for
fewer epochs. Where an architecture has several complete trials, their spread adds its likelihood. tau has a prior of
the same form around 0.25, which is about 2 points at 90 %.

N trials, G distinct architectures, C costs, P columns of the regression, K nodes of the grid of tau and sigma, R
architectures with several trials, H hyperparameters drawn of the grid, S draws of all true accuracies.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, ndtri

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEED_SD = 0.05  # median of the prior of sigma
SEED_FACTOR = 2.0  # one standard deviation of the prior of log sigma is the log of it
SHARED = 0.3  # rho
_OF_TRAINING = 0.75  # kappa
_SPREAD, _SPREAD_FACTOR = 0.25, 2.0  # the same of tau
_TOTALS = (0.01, 4.0)  # least and most (tau² + sigma²) ** 0.5 of the grid
_NUM_TOTALS = 16
_ANGLES = np.geomspace(0.01, 1.55, 10)  # of the grid: sigma / tau is the tangent
_INTERCEPT_SD, _SLOPE_SD = 100.0, 2.0  # of the priors of beta, for standardised log costs
_UNLIKELY = 1e-4  # density of a node, beside the likeliest, below which the finer grid leaves it out
_NUM_PASSES = 4  # of eq. 8
_LEAST = 0.25  # images that are taken as wrong at least, and as right
_MOST_FITTED = 1000  # architectures from which tau, sigma and beta are learned
_NUM_HYPER, _NUM_EACH = 128, 16  # H, and how many of the S draws use each
_NORMAL_95 = 1.6448536269514722  # normal quantile of a two-sided interval of 90 %
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(11)


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
        split_G: Variance of the part of its error on the split that all trainings share (e in eq. 5).
        training_HG: That of what each training has alone (f and s in eqs. 6 and 7).
        counts_G: Trainings of each architecture.
        own_N: Mean logits of the accuracy that the weights of each of the N trials have on all images.
        own_var_G: Variances of these, by architecture.
        hyper: The hyperparameters.
        seed: Of the draws.
    """

    mean_HG: Floats
    var_HG: Floats
    split_G: Floats
    training_HG: Floats
    counts_G: Ints
    own_N: Floats
    own_var_G: Floats
    hyper: Hyperparameters
    seed: int

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

    def noise(self, architectures: Iterable[int]) -> NDArray[np.float32]:
        """S standard normal draws for each of some architectures, a row each; the same at every call."""
        rows = [self._noises[g] if g in self._noises else self._draw_noise(g) for g in map(int, architectures)]
        return np.stack(rows) if rows else np.empty((0, _NUM_EACH * _NUM_HYPER), np.float32)

    @cached_property
    def _noises(self) -> dict[int, NDArray[np.float32]]:
        """What has been drawn for single architectures."""
        return {}

    def _draw_noise(self, g: int) -> NDArray[np.float32]:
        rng = np.random.default_rng((self.seed, g))
        return self._noises.setdefault(g, rng.standard_normal(_NUM_EACH * _NUM_HYPER, dtype=np.float32))

    def draw(self, architectures: Ints) -> NDArray[np.float32]:
        """S joint draws of the true logits of some architectures, one row for each; the same at every call."""
        return self.draw_from(self.noise(architectures), architectures)

    def draw_from(self, noise_MS: NDArray[np.float32], architectures: Ints) -> NDArray[np.float32]:
        """What the noise of M architectures makes of their means and standard deviations, hyperparameters in turn."""
        noise_MEH = noise_MS.reshape(len(noise_MS), _NUM_EACH, -1)
        mean_M1H = self.mean_HG[:, architectures].T[:, None].astype(np.float32)
        sd_M1H = np.sqrt(self.var_HG[:, architectures]).T[:, None].astype(np.float32)
        return (mean_M1H + sd_M1H * noise_MEH).reshape(noise_MS.shape)

    def explained(self, architectures: Ints, num_more: Ints) -> Floats:
        """Part of the variances of true logits that more trainings would take away, of shape (H, M).

        Args:
            architectures: M of them.
            num_more: Trainings of each beside those that there are.
        """
        tau2_H1 = self.hyper.tau_H[:, None] ** 2
        fixed_HM = tau2_H1 + self.split_G[architectures]
        training_HM, counts_M = self.training_HG[:, architectures], self.counts_G[architectures]
        now_HM, then_HM = (fixed_HM + training_HM / count_M for count_M in (counts_M, counts_M + num_more))
        taken_HM: Floats = tau2_H1**2 * (1 / then_HM - 1 / now_HM) / self.var_HG[:, architectures]
        return taken_HM


class _Trainings(NamedTuple):
    """What was seen of each architecture, on the logit scale."""

    y_G: Floats  # means over its trainings
    v_G: Floats  # of eq. 3
    counts_G: Ints
    squares_G: Floats  # sums of squares between its trainings


def fit(accuracy_N: Floats, costs_NC: Floats, group_N: Ints, *, num_images: int, seed: int = 0) -> Posterior:
    """What is known of the true accuracies of G architectures after N trainings (eqs. 1 to 7).

    Args:
        accuracy_N: Accuracies in [0, 1] on the validation split.
        costs_NC: Known without error.
        group_N: Of which architecture each trial is a training, from 0 to G - 1; none is left out.
        num_images: Images of the split.
        seed: Of the draws of the hyperparameters and, later, of the accuracies.
    """
    counts_G = np.bincount(group_N)
    x_GP, precision_P = _regressors(costs_NC[np.unique(group_N, return_index=True)[1]])
    p_N = expit(_logits(accuracy_N, num_images))
    for _ in range(_NUM_PASSES):
        z_N = logit(p_N) + (accuracy_N - p_N) / (p_N * (1 - p_N))  # (eq. 8)
        y_G, p_G = (np.bincount(group_N, values_N) / counts_G for values_N in (z_N, p_N))
        v_G = 1 / (num_images * p_G * (1 - p_G))  # (eq. 3)
        apart_N = z_N - y_G[group_N]
        seen = _Trainings(y_G, v_G, counts_G, np.bincount(group_N, apart_N**2).astype(np.float64))
        hyper = _draw_hyperparameters(seen, x_GP, precision_P, seed=seed)
        own_N = _own_logits(seen, x_GP, hyper, group_N, apart_N)
        p_N = expit(own_N).clip(_LEAST / num_images, 1 - _LEAST / num_images)
    return _condition(seen, x_GP, hyper, own_N, seed=seed)


def _regressors(costs_GC: Floats) -> tuple[Floats, Floats]:
    """Columns of the regression, of shape (G, P), and the precisions of their coefficients' priors, of shape (P,)."""
    is_positive_C = (costs_GC > 0).all(axis=0)
    logs_GC = np.where(is_positive_C, np.log(np.where(is_positive_C, costs_GC, 1.0)), costs_GC)
    spread_C = logs_GC.std(axis=0)
    scaled_GC = (logs_GC - logs_GC.mean(axis=0)) / np.where(spread_C > 0, spread_C, 1.0)
    x_GP = np.column_stack([np.ones(len(scaled_GC)), scaled_GC])
    return x_GP, np.array([_INTERCEPT_SD, *[_SLOPE_SD] * scaled_GC.shape[1]]) ** -2.0


def _draw_hyperparameters(seen: _Trainings, x_GP: Floats, precision_P: Floats, *, seed: int) -> Hyperparameters:
    """H draws of beta, tau and sigma, spread evenly over their posterior."""
    num_columns, num_all = x_GP.shape[1], len(seen.y_G)
    used = np.unique(np.linspace(0, num_all - 1, min(num_all, _MOST_FITTED)).astype(int))
    y_G, v_G, counts_G, x_GP = seen.y_G[used], seen.v_G[used], seen.counts_G[used], x_GP[used]
    centre = float(y_G.mean())
    r_G = y_G - centre
    split_G, training_G = _own(v_G)
    products_GP = (x_GP[:, :, None] * x_GP[:, None, :]).reshape(len(y_G), -1)
    several = np.flatnonzero(seen.counts_G > 1)
    freedom_R, squares_R, training_R = seen.counts_G[several] - 1, seen.squares_G[several], _own(seen.v_G[several])[1]
    low, high = _TOTALS
    for _ in range(2):  # the second time on a finer grid, where the posterior is
        total_K, angle_K = (grid.ravel() for grid in np.meshgrid(np.geomspace(low, high, _NUM_TOTALS), _ANGLES))
        sigma_K, tau_K = total_K * np.sin(angle_K), total_K * np.cos(angle_K)
        w_KG = 1 / (tau_K[:, None] ** 2 + split_G + (training_G + sigma_K[:, None] ** 2) / counts_G)
        a_KPP = (w_KG @ products_GP).reshape(-1, num_columns, num_columns) + np.diag(precision_P)
        b_KP = (w_KG * r_G) @ x_GP
        beta_KP = np.linalg.solve(a_KPP, b_KP[..., None])[..., 0]
        misfit_K = w_KG @ r_G**2 - (b_KP * beta_KP).sum(axis=1)
        log_K = 0.5 * (np.log(w_KG).sum(axis=1) - np.linalg.slogdet(a_KPP)[1] - misfit_K)  # BDA3 eq. 5.21
        between_KR = training_R + sigma_K[:, None] ** 2
        log_K -= 0.5 * (freedom_R * np.log(between_KR) + squares_R / between_KR).sum(axis=1)
        log_K += -0.5 * (np.log(sigma_K / SEED_SD) / np.log(SEED_FACTOR)) ** 2  # prior of log sigma
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


def _own_logits(seen: _Trainings, x_GP: Floats, hyper: Hyperparameters, group_N: Ints, apart_N: Floats) -> Floats:
    """Mean logits of the accuracy that each trial's weights have on all images: without the split's error.

    Args:
        apart_N: By how much each trial's logit differs from its architecture's mean.
    """
    split_G, training_G = _own(seen.v_G)
    surprise_G, of_apart_G = np.zeros_like(seen.y_G), np.zeros_like(seen.y_G)
    for beta_P, tau, sigma in zip(hyper.beta_HP, hyper.tau_H, hyper.sigma_H, strict=True):  # rows stay in the cache
        all_training_G = training_G + sigma**2
        surprise_G += (seen.y_G - hyper.centre - x_GP @ beta_P) / (tau**2 + split_G + all_training_G / seen.counts_G)
        of_apart_G += training_G / all_training_G  # share of a trial's difference from its siblings that is f
    num_nodes = len(hyper.tau_H)
    error_G = (split_G + training_G / seen.counts_G) * surprise_G / num_nodes
    own_N: Floats = (seen.y_G - error_G)[group_N] + apart_N * (1 - of_apart_G / num_nodes)[group_N]
    return own_N


def _condition(seen: _Trainings, x_GP: Floats, hyper: Hyperparameters, own_N: Floats, *, seed: int) -> Posterior:
    """True logits given hyperparameters (BDA3 eq. 5.17)."""
    counts_G = seen.counts_G
    split_G, training_G = _own(seen.v_G)
    prior_HG = hyper.centre + hyper.beta_HP @ x_GP.T
    tau2_H1 = hyper.tau_H[:, None] ** 2
    training_HG = training_G + hyper.sigma_H[:, None] ** 2
    total_HG = tau2_H1 + split_G + training_HG / counts_G
    surprise_HG = (seen.y_G - prior_HG) / total_HG
    shared_HG = np.sqrt(SHARED * seen.v_G) * hyper.xi_H[:, None]  # (eq. 4)
    in_mean_G = split_G + training_G / counts_G  # variance of e plus the mean of all f
    left_HG = split_G + training_G - in_mean_G**2 / total_HG - training_G**2 / training_HG * (1 - 1 / counts_G)
    return Posterior(
        mean_HG=prior_HG + tau2_H1 * surprise_HG - shared_HG,
        var_HG=tau2_H1 * (1 - tau2_H1 / total_HG),
        split_G=split_G,
        training_HG=training_HG,
        counts_G=counts_G,
        own_N=own_N,
        own_var_G=SHARED * seen.v_G + left_HG.mean(axis=0) + in_mean_G**2 * surprise_HG.var(axis=0),
        hyper=hyper,
        seed=seed,
    )


def _own(v_G: Floats) -> tuple[Floats, Floats]:
    """Variances of what each architecture (eq. 5) and each training (eq. 6) has alone of the error on the split."""
    own_G = (1 - SHARED) * v_G
    return (1 - _OF_TRAINING) * own_G, _OF_TRAINING * own_G


def mean_accuracy(mean_N: Floats, var_N: Floats) -> Floats:
    """Mean accuracies in [0, 1] whose logits are normal with these means and variances, by Gauss-Hermite quadrature."""
    points = expit(np.asarray(mean_N)[..., None] + np.sqrt(var_N)[..., None] * _NODES)
    accuracy_N: Floats = points @ (_WEIGHTS / _WEIGHTS.sum())
    return accuracy_N


def expected_on_test(posterior: Posterior, group_N: Ints) -> Floats:
    """Mean accuracies in [0, 1], of shape (N,), that the weights of N trials are expected to have on new images.

    What an accuracy owes to the split (d, e and f in eqs. 4 to 6) is lost there; what it owes to its seed stays.

    Args:
        group_N: As `fit` was given it.
    """
    return mean_accuracy(posterior.own_N, posterior.own_var_G[group_N])


def _logits(accuracy_N: Floats, num_images: int) -> Floats:
    """Logits of accuracies that were counted on some images, finite also at 0 and 1 (Gart and Zweifel, 1967)."""
    right_N = accuracy_N * num_images
    logit_N: Floats = np.log((right_N + 0.5) / (num_images - right_N + 0.5))
    return logit_N
