"""A Gaussian process with a Matérn 5/2 kernel, a constant mean and noise (Rasmussen and Williams 2006).

n points, m other points, d features in g groups; all features of a group have one length scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

Floats = NDArray[np.float64]
LEAST_COMPLETE = 5  # points, before a model is fitted
POINTS_TO_FIT, POINTS_TO_PREDICT = 200, 300  # at most
_GROWTH = 1.15  # of the number of trials from one fit of the hyperparameters to the next
_JITTER = 1e-8
_STEPS = 25  # of L-BFGS
# Normal priors of the logarithms, as (mean, standard deviation). That of the length scales grows with the number of
# groups, so that distances under it do not (arXiv:2402.02229).
_SPREAD_OF_LENGTHS = 1.0
_SIGNAL = (0.0, 1.0)
_NOISE = (np.log(1e-2), 1.5)
_BOUNDS_OF_LENGTHS = (-3.0, 5.0)
_BOUNDS_OF_SIGNAL = (-4.0, 5.0)
_BOUNDS_OF_NOISE = (-11.0, 1.0)


@dataclass(frozen=True)
class Hyperparameters:
    """What the marginal likelihood chooses, for targets of mean 0 and variance 1."""

    lengths: Floats  # (g,)
    signal: float  # variance of the function
    noise: float  # variance of one observation


@dataclass(frozen=True)
class GaussianProcess:
    """The posterior given points and their targets."""

    parameters: Hyperparameters
    groups: NDArray[np.int64]  # (d,): the group of each feature
    x_nd: Floats
    y_n: Floats
    extra_n: Floats | float = 0.0  # variance of each target beside that of the noise

    def predict(self, x_md: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the function at other points, without noise; each of shape (m,)."""
        kernel_nm = self._kernel(self.x_nd, x_md)
        mean: Floats = self._constant + kernel_nm.T @ self._weights
        whitened = solve_triangular(self._factor, kernel_nm, lower=True, check_finite=False)
        variance = self.parameters.signal - np.einsum("nm,nm->m", whitened, whitened)
        return mean, np.sqrt(np.maximum(variance, 1e-10))

    def with_running(self, x_rd: Floats) -> "GaussianProcess":
        """The posterior where trials that run had already ended at its mean."""
        if not len(x_rd):
            return self
        mean, _ = self.predict(x_rd)
        x = np.concatenate([self.x_nd, x_rd])
        extra = np.concatenate([np.broadcast_to(self.extra_n, len(self.y_n)), np.zeros(len(mean))])
        return GaussianProcess(self.parameters, self.groups, x, np.concatenate([self.y_n, mean]), extra)

    def _kernel(self, x_nd: Floats, other_md: Floats) -> Floats:
        scale_d = self.parameters.lengths[self.groups]
        kernel = _matern(_squared_distances(x_nd / scale_d, other_md / scale_d))
        kernel *= self.parameters.signal
        return kernel

    @cached_property
    def _factor(self) -> Floats:
        kernel_nn = self._kernel(self.x_nd, self.x_nd)
        kernel_nn[np.diag_indices_from(kernel_nn)] += self.parameters.noise + _JITTER + self.extra_n
        return np.linalg.cholesky(kernel_nn).astype(np.float64, copy=False)

    @cached_property
    def _constant(self) -> float:
        """The mean by generalised least squares."""
        return _best_constant(self._factor, self.y_n)

    @cached_property
    def _weights(self) -> Floats:
        weights: Floats = cho_solve((self._factor, True), self.y_n - self._constant, check_finite=False)
        return weights


def fit(x_nd: Floats, y_n: Floats, groups: NDArray[np.int64]) -> Hyperparameters:
    """The hyperparameters of the highest posterior density, from a fixed start.

    Args:
        y_n: Targets of mean 0 and variance 1.
        groups: The group of each feature, from 0 on.
    """
    num_groups = int(groups.max()) + 1
    squares_gnn = np.stack([_squared_distances(x_nd[:, groups == g], x_nd[:, groups == g]) for g in range(num_groups)])
    centre = np.array([*[0.5 * np.log(num_groups)] * num_groups, _SIGNAL[0], _NOISE[0]])
    spread = np.array([*[_SPREAD_OF_LENGTHS] * num_groups, _SIGNAL[1], _NOISE[1]])

    def loss(theta: Floats) -> tuple[float, Floats]:
        value, gradient = _negative_log_likelihood(theta, squares_gnn, y_n)
        away = (theta - centre) / spread
        return value + 0.5 * float(away @ away), gradient + away / spread

    bounds = [*[_BOUNDS_OF_LENGTHS] * num_groups, _BOUNDS_OF_SIGNAL, _BOUNDS_OF_NOISE]
    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS}).x
    return Hyperparameters(np.exp(found[:num_groups]), float(np.exp(found[-2])), float(np.exp(found[-1])))


def fit_sizes(most: int) -> list[int]:
    """The numbers of trials, up to `most`, at which the hyperparameters are fitted anew."""
    sizes, size = [], LEAST_COMPLETE
    while size <= most:
        sizes.append(size)
        size = max(int(size * _GROWTH), size + 5)
    return sizes


def thinned(num: int, front: Sequence[int], most: int) -> list[int]:
    """Places of at most so many of the first `num` points: the front, the youngest, and one in so many others."""
    if num <= most:
        return list(range(num))
    is_chosen = np.zeros(num, dtype=bool)
    is_chosen[front[: most // 2]] = True
    is_chosen[num - most // 4 :] = True
    others = np.flatnonzero(~is_chosen)
    wanted = np.linspace(0, len(others) - 1, most - int(is_chosen.sum())).round().astype(int)
    is_chosen[others[wanted]] = True
    return [int(place) for place in np.flatnonzero(is_chosen)]


def _negative_log_likelihood(theta: Floats, squares_gnn: Floats, y_n: Floats) -> tuple[float, Floats]:
    """The negative logarithm of the marginal likelihood, without its constant, and its gradient (eqs. 2.30 and 5.9)."""
    num_groups, num_points, _ = squares_gnn.shape
    inverse_g = np.exp(-2 * theta[:num_groups])
    signal, noise = np.exp(theta[-2]), np.exp(theta[-1])
    distance_nn = np.sqrt(5 * np.tensordot(inverse_g, squares_gnn, axes=1))
    decay_nn = np.exp(-distance_nn)
    kernel_nn = signal * (1 + distance_nn + distance_nn**2 / 3) * decay_nn
    covariance_nn = kernel_nn + (noise + _JITTER) * np.eye(num_points)
    factor = np.linalg.cholesky(covariance_nn)
    rest = y_n - _best_constant(factor, y_n)
    weights = cho_solve((factor, True), rest, check_finite=False)
    value = 0.5 * float(rest @ weights) + float(np.log(np.diag(factor)).sum())
    slope_nn = 0.5 * (cho_solve((factor, True), np.eye(num_points), check_finite=False) - np.outer(weights, weights))
    by_length_nn = slope_nn * signal * (5 / 3) * (1 + distance_nn) * decay_nn  # of dK / d log length, but for r_g^2
    gradient = np.empty_like(theta)
    gradient[:num_groups] = inverse_g * np.tensordot(squares_gnn, by_length_nn, axes=2)
    gradient[-2] = float((slope_nn * kernel_nn).sum())
    gradient[-1] = float(np.trace(slope_nn)) * noise
    return value, gradient


def _best_constant(factor: Floats, y_n: Floats) -> float:
    ones: Floats = cho_solve((factor, True), np.ones_like(y_n), check_finite=False)
    return float(ones @ y_n / ones.sum())


def _matern(squares: Floats) -> Floats:
    """The kernel from squared scaled distances (eq. 4.17), in few arrays: passing over them is what takes the time."""
    distance = 5 * squares
    np.sqrt(distance, out=distance)
    matern = distance / 3
    matern += 1
    matern *= distance
    matern += 1
    np.negative(distance, out=distance)
    np.exp(distance, out=distance)
    matern *= distance
    return matern


def _squared_distances(x_nd: Floats, other_md: Floats) -> Floats:
    squares: Floats = x_nd @ (-2 * other_md.T)
    squares += (x_nd**2).sum(1)[:, None]
    squares += (other_md**2).sum(1)
    return np.maximum(squares, 0.0, out=squares)
