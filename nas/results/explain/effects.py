"""Which gene moves accuracy at equal cost, and how sure that is.

The logit y_g of the mean accuracy of architecture g is explained by its costs and its genes:

    y_g = x_g beta + z_g gamma + e_g                                                          (1)
    gamma_j ~ N(0, 1 / lambda),  e_g ~ N(0, 1 / (alpha w_g))                                  (2)

x_g holds 1 and the logarithms of the costs, which are known exactly; beta has a flat prior, so costs explain all that
they can. z_g holds an indicator for each value of a gene that names something, and the logarithm to base 2 of one that
is a number. w_g weighs down accuracies near 0 and 1, and few images (eq. 3); alpha and lambda are learned by marginal
likelihood (MacKay, 1992, with the priors of scikit-learn's BayesianRidge), after beta has been projected out (Frisch
and Waugh, 1933), for which the covariance of gamma is G / (G - P) times as large.

    1 / w_g ~ s² + 1 / (m a_g (1 - a_g))                                                      (3)

m is the number of validation images, a_g the accuracy, s² what an unweighted fit leaves unexplained. Each gene acts
alone here: how one changes what another does is part of e_g. A search tries more of what does well; that does not bias
(1), as long as it went by the costs and genes that are in it.

G architectures, P costs and 1, J columns of genes.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import kendalltau

from metaformer.errors import UserError
from nas.record.trials import TrialRecord
from nas.results.results import Results
from nas.study.objectives import ACCURACY
from search_spaces.space import Choice, Gene, Genes

Floats = NDArray[np.float64]
FEWEST = 12  # architectures from which anything is said
_FEWEST_OF_VALUE = 3  # that have a value before it is compared
_NUM_FOLDS = 5
_CLEAR = 1.6448536269514722  # standard deviations from 0: a two-sided interval of 90 %
_LARGEST_LOGIT = 7.0
_WEAK = 1e-6  # shape and rate of the gamma priors of alpha and lambda
_MOST_STEPS, _STILL = 1000, 1e-3  # of the fit, and the change of all coefficients at which it ends


@dataclass(frozen=True)
class Effect:
    """What one value of a gene adds to accuracy, instead of another, at equal cost.

    Attributes:
        value: None: twice the number, of a gene that is one.
        instead_of: The value that most architectures have; None likewise.
        points: Mean effect in percentage points, at the accuracy that `Explanation` names.
        sd: Its standard deviation.
        num_tried: Architectures with either value.
        num_pairs: Of two architectures that differ in this alone.
        pair_points: The mean difference of these pairs in points, costs not made equal; None where there are none.
    """

    gene: str
    value: Gene | None
    instead_of: Gene | None
    points: float
    sd: float
    num_tried: tuple[int, int]
    num_pairs: int
    pair_points: float | None

    @property
    def p_positive(self) -> float:
        """Probability that it is above 0."""
        return float(ndtr(self.points / self.sd)) if self.sd else float(self.points > 0)

    @property
    def is_clear(self) -> bool:
        """Whether an interval of 90 % does not hold 0."""
        return abs(self.points) > _CLEAR * self.sd

    @property
    def text(self) -> str:
        """`mixer_4: attention instead of pool`, or `width_2: twice as large`."""
        if self.value is None:
            return f"{self.gene}: twice as large"
        return f"{self.gene}: {self.value} instead of {self.instead_of}"


@dataclass(frozen=True)
class Comparison:
    """What the values of several genes add together, instead of others, at equal cost: percentage points."""

    first: Genes
    second: Genes
    points: float
    sd: float

    @property
    def p_positive(self) -> float:
        """Probability that it is above 0."""
        return float(ndtr(self.points / self.sd)) if self.sd else float(self.points > 0)


class Explanation:
    """What the complete trials of a run say of its genes.

    Attributes:
        accuracy: In [0, 1]: the median of the front, at which effects are given in points.
        num_architectures: That were trained to the end.
    """

    def __init__(self, results: Results, *, pairs: bool = True) -> None:
        """Fit the model.

        Args:
            pairs: Whether effects say what pairs of architectures that differ in one gene show.
        Raises:
            UserError: There are too few trials, or their accuracies are all equal.
        """
        trials = results.complete
        if len(trials) < FEWEST:
            raise UserError(f"run: must have {FEWEST} complete architectures at least, got {len(trials)}")
        goals = results.goals
        self._compares_pairs = pairs
        points_GO = results.points
        is_accuracy_O = np.array(goals.names) == ACCURACY
        self._accuracy_G: Floats = points_GO[:, is_accuracy_O][:, 0]
        self._genes: list[Mapping[str, Gene]] = [_active_genes(results, trial) for trial in trials]
        self._choices: tuple[Choice, ...] = tuple(results.run.space.choices)
        self.num_architectures = len(trials)
        self.accuracy = float(np.median([trial.val_accuracy or 0.0 for trial in results.front]))
        num_val = results.num_val or 1000
        y_G = np.log((self._accuracy_G * num_val + 0.5) / ((1 - self._accuracy_G) * num_val + 0.5))
        self._y_G: Floats = y_G.clip(-_LARGEST_LOGIT, _LARGEST_LOGIT)
        if np.ptp(self._y_G) == 0:
            raise UserError(f"run: must have architectures of different accuracy, got {self.accuracy:.2%} of all")
        self._x_GP = _costs(points_GO[:, ~is_accuracy_O])
        self._columns, self._z_GJ = self._design()
        variance_G = 1 / (num_val * (self._accuracy_G * (1 - self._accuracy_G)).clip(1 / num_val))
        residual_G = self._y_G - _fit(self._x_GP, self._z_GJ, self._y_G, None).predict(self._x_GP, self._z_GJ)
        self._weight_G: Floats = 1 / (float(residual_G.var()) + variance_G)
        self._weight_G /= self._weight_G.mean()
        self._model = _fit(self._x_GP, self._z_GJ, self._y_G, self._weight_G)

    def _design(self) -> tuple[dict[tuple[str, Gene | None], int], Floats]:
        """Where the column of each gene's value is, and the columns, each with mean 0; of genes that vary alone."""
        places: dict[tuple[str, Gene | None], int] = {}
        columns: list[Floats] = []
        for choice in self._choices:
            has_G = np.array([choice.name in genes for genes in self._genes])
            values = [genes[choice.name] for genes in self._genes if choice.name in genes]
            if len(set(values)) < 2:
                continue
            if choice.numbers is not None and choice.numbers[0] > 0:
                places[choice.name, None] = len(columns)
                columns.append(_centred(np.log2(np.array(values, dtype=float)), has_G))
                continue
            for value in dict.fromkeys(values):
                places[choice.name, value] = len(columns)
                columns.append(_centred(np.array([other == value for other in values], dtype=float), has_G))
        return places, np.column_stack(columns) if columns else np.empty((len(self._genes), 0))

    @property
    def slope(self) -> float:
        """Percentage points of accuracy for 1 on the logit scale, at `accuracy`."""
        return 100 * self.accuracy * (1 - self.accuracy)

    @cached_property
    def effects(self) -> list[Effect]:
        """Every value that was tried often enough, in the order of the genes, the largest effect of each gene first."""
        found: list[Effect] = []
        for choice in self._choices:
            tried = Counter(genes[choice.name] for genes in self._genes if choice.name in genes)
            if (choice.name, None) in self._columns:
                found.append(self._effect(choice.name, None, None, (tried.total(), len(tried))))
                continue
            if not tried:
                continue
            usual = max(tried, key=lambda value: tried[value])
            others = [
                self._effect(choice.name, value, usual, (tried[value], tried[usual]))
                for value in tried
                if value != usual and tried[value] >= _FEWEST_OF_VALUE
            ]
            found += sorted(others, key=lambda effect: -effect.points)
        return found

    def _effect(self, gene: str, value: Gene | None, usual: Gene | None, num_tried: tuple[int, int]) -> Effect:
        contrast_J = np.zeros(self._z_GJ.shape[1])
        contrast_J[self._columns[gene, value]] = 1.0
        if usual is not None:
            contrast_J[self._columns[gene, usual]] = -1.0
        mean, sd = self._model.effect(contrast_J)
        gains = [] if usual is None or not self._compares_pairs else self._pairs.get((gene, value, usual), [])
        return Effect(
            gene=gene,
            value=value,
            instead_of=usual,
            points=self.slope * mean,
            sd=self.slope * sd,
            num_tried=num_tried,
            num_pairs=len(gains),
            pair_points=100 * float(np.mean(gains)) if gains else None,
        )

    def compare(self, first: Mapping[str, Gene], second: Mapping[str, Gene]) -> "Comparison":
        """What the values of some genes add together, instead of others.

        Raises:
            UserError: The genes of both are not the same, or a value was not tried.
        """
        if sorted(first) != sorted(second):
            raise UserError(
                f"compare: must name the same genes on both sides, got {','.join(first)} and {','.join(second)}"
            )
        contrast_J = np.zeros(self._z_GJ.shape[1])
        for genes, sign in ((first, 1.0), (second, -1.0)):
            for name, value in genes.items():
                if (name, None) in self._columns and isinstance(value, (int, float)) and value > 0:
                    contrast_J[self._columns[name, None]] += sign * np.log2(value)
                elif (name, value) in self._columns:
                    contrast_J[self._columns[name, value]] += sign
                else:
                    raise UserError(f"compare: must name what was tried beside others, got {name}={value}")
        mean, sd = self._model.effect(contrast_J)
        return Comparison(dict(first), dict(second), self.slope * mean, self.slope * sd)

    @cached_property
    def _pairs(self) -> dict[tuple[str, Gene | None, Gene | None], list[float]]:
        """Differences in accuracy of architectures that differ in one gene alone, by gene and both values."""
        names = [choice.name for choice in self._choices]
        codes_GC = np.column_stack([_codes([genes.get(name) for genes in self._genes]) for name in names])
        size = codes_GC.itemsize
        rows = [codes_C.tobytes() for codes_C in codes_GC]
        found: dict[tuple[str, Gene | None, Gene | None], list[float]] = defaultdict(list)
        for place, name in enumerate(names):
            alike: dict[bytes, list[int]] = defaultdict(list)
            for row, codes in enumerate(rows):
                alike[codes[: place * size] + codes[(place + 1) * size :]].append(row)
            for members in alike.values():
                for first, second in combinations(members, 2):
                    gain = float(self._accuracy_G[first] - self._accuracy_G[second])
                    values = self._genes[first][name], self._genes[second][name]
                    found[name, values[0], values[1]].append(gain)
                    found[name, values[1], values[0]].append(-gain)
        return found

    @cached_property
    def rank_correlations(self) -> tuple[float, float]:
        """Kendall's tau between accuracies and predictions for architectures that were left out of the fit.

        First by costs alone, then by costs and genes; five folds.
        """
        by_costs, by_all = np.empty(len(self._y_G)), np.empty(len(self._y_G))
        no_genes_GJ = self._z_GJ[:, :0]
        for test in np.array_split(np.random.default_rng(0).permutation(len(self._y_G)), _NUM_FOLDS):
            train = np.setdiff1d(np.arange(len(self._y_G)), test)
            for genes_GJ, predicted_G in ((no_genes_GJ, by_costs), (self._z_GJ, by_all)):
                model = _fit(self._x_GP[train], genes_GJ[train], self._y_G[train], self._weight_G[train])
                predicted_G[test] = model.predict(self._x_GP[test], genes_GJ[test])
        first, second = (float(kendalltau(found, self._y_G).statistic) for found in (by_costs, by_all))
        return first, second


def _active_genes(results: Results, trial: TrialRecord) -> Genes:
    """The genes of a trial but those of the other families of a union."""
    genes = results.run.record.genes(trial)
    return {choice.name: genes[choice.name] for choice in results.run.space.active_choices(genes)}


def _centred(values: Floats, has_G: NDArray[np.bool_]) -> Floats:
    """A column of the design: values with mean 0 where an architecture has the gene, 0 elsewhere."""
    column_G = np.zeros(len(has_G))
    column_G[has_G] = values - values.mean()
    return column_G


class _Fit:
    """The model of eqs. 1 and 2 after its fit."""

    def __init__(self, beta_P: Floats, gamma_J: Floats, cov_JJ: Floats) -> None:
        self._beta_P, self._gamma_J, self._cov_JJ = beta_P, gamma_J, cov_JJ

    def predict(self, x_GP: Floats, z_GJ: Floats) -> Floats:
        """Mean logits."""
        return x_GP @ self._beta_P + z_GJ @ self._gamma_J

    def effect(self, contrast_J: Floats) -> tuple[float, float]:
        """Mean and standard deviation of a weighted sum of the genes' coefficients."""
        variance = float(contrast_J @ self._cov_JJ @ contrast_J)
        return float(contrast_J @ self._gamma_J), max(0.0, variance) ** 0.5


def _fit(x_GP: Floats, z_GJ: Floats, y_G: Floats, weight_G: Floats | None) -> _Fit:
    """Fit eqs. 1 and 2; weights None: all equal."""
    root_G1 = np.sqrt(np.ones(len(y_G)) if weight_G is None else weight_G)[:, None]
    x, z, y = root_G1 * x_GP, root_G1 * z_GJ, root_G1[:, 0] * y_G
    pinv_PG = np.linalg.pinv(x)
    gamma_J, cov_JJ = np.zeros(z.shape[1]), np.zeros((z.shape[1], z.shape[1]))
    if z.shape[1]:
        gamma_J, cov_JJ = bayesian_ridge(z - x @ (pinv_PG @ z), y - x @ (pinv_PG @ y))
        cov_JJ *= len(y) / (len(y) - x.shape[1])
    return _Fit(pinv_PG @ (y - z @ gamma_J), gamma_J, cov_JJ)


def bayesian_ridge(z_GJ: Floats, y_G: Floats) -> tuple[Floats, Floats]:
    """Mean and covariance of gamma in y = z gamma + e by eq. 2, with alpha and lambda of largest marginal likelihood.

    What scikit-learn's BayesianRidge gives without an intercept, by the products of columns alone: with d_i the
    eigenvalues of z'z and c_i = alpha d_i / (lambda + alpha d_i), MacKay's steps (1992, eqs. 4.10 and 4.11) are

        lambda = sum c_i / |gamma|²,   alpha = (G - sum c_i) / |y - z gamma|²                     (4)
    """
    eigen_J, v_JJ = np.linalg.eigh(z_GJ.T @ z_GJ)
    eigen_J = eigen_J.clip(0)
    b_J = v_JJ.T @ (z_GJ.T @ y_G)
    alpha, lam = 1 / (y_G.var() + np.finfo(float).eps), 1.0
    gamma_J = before_J = np.full(len(b_J), np.inf)
    for _ in range(_MOST_STEPS):
        gamma_J = v_JJ @ (b_J / (eigen_J + lam / alpha))
        determined = (alpha * eigen_J / (lam + alpha * eigen_J)).sum()
        lam = (determined + 2 * _WEAK) / (gamma_J @ gamma_J + 2 * _WEAK)
        alpha = (len(y_G) - determined + 2 * _WEAK) / (((y_G - z_GJ @ gamma_J) ** 2).sum() + 2 * _WEAK)
        if np.abs(gamma_J - before_J).sum() < _STILL:
            break
        before_J = gamma_J
    gamma_J = v_JJ @ (b_J / (eigen_J + lam / alpha))
    return gamma_J, (v_JJ / (alpha * eigen_J + lam)) @ v_JJ.T


def _codes(values: Sequence[Gene | None]) -> NDArray[np.uint32]:
    """The place of each value among the different ones."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return np.array([places[value] for value in values], dtype=np.uint32)


def _costs(costs_GC: Floats) -> Floats:
    """A column of ones, and the logarithms of the costs, standardised."""
    is_positive_C = (costs_GC > 0).all(axis=0)
    logs_GC = np.where(is_positive_C, np.log(np.where(is_positive_C, costs_GC, 1.0)), costs_GC)
    spread_C = logs_GC.std(axis=0)
    scaled_GC = (logs_GC - logs_GC.mean(axis=0)) / np.where(spread_C > 0, spread_C, 1.0)
    return np.column_stack([np.ones(len(scaled_GC)), scaled_GC])


def strongest(effects: Sequence[Effect]) -> list[Effect]:
    """The effects that are clear, the largest first."""
    return sorted((effect for effect in effects if effect.is_clear), key=lambda effect: -abs(effect.points))
