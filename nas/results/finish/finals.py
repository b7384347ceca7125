"""The models of a search after their training on the full recipe: means, spreads, the final front, and ranks.

A rank correlation is Kendall's tau-b (Kendall, 1945), with a percentile interval of a bootstrap over models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from scipy.stats import kendalltau

from metaformer.architecture import Architecture
from nas.record.trials import TrialRecord
from nas.results.results import Results
from nas.results.uncertainty import Estimate
from nas.study.finals import FinalModel

_FEWEST_RANKED = 5  # models from which a rank correlation is worth saying
_RESAMPLES = 2000
_LEAST_INTERVAL, _MOST_INTERVAL = 5, 95  # percentiles


@dataclass(frozen=True)
class Spread:
    """Accuracies in [0, 1] of one model's trainings: their mean and, of two or more, their standard deviation."""

    mean: float
    sd: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """None where there are no values."""
        if not values:
            return None
        return cls(fmean(values), stdev(values) if len(values) > 1 else None)

    def __str__(self) -> str:
        """As percentages: `91.62 ± 0.31 %`."""
        spread = "" if self.sd is None else f" ± {100 * self.sd:.2f}"
        return f"{100 * self.mean:.2f}{spread} %"


@dataclass(frozen=True)
class Final:
    """One model and its trainings."""

    model: FinalModel
    architecture: Architecture
    trials: tuple[TrialRecord, ...]  # complete ones, in the order of their seeds
    val: Spread | None
    test: Spread | None
    estimate: Estimate | None  # of its true accuracy, over seeds and all images
    is_on_front: bool  # by its mean accuracy on val

    @property
    def name(self) -> str:
        """Its names as a hand-designed model, or its number in the search."""
        return " = ".join(self.model.references) or f"#{self.model.trial}"


@dataclass(frozen=True)
class RankCorrelation:
    """How well the search's accuracies on val rank the models as their full training on test does."""

    tau: float
    low: float  # ends of an interval that holds it with probability 0.9
    high: float
    num_models: int


def finals_of(results: Results) -> list[Final]:
    """The models of a study of finals, the final front first, each part by rising parameters; none of a search."""
    study, space = results.run.study, results.run.space
    if study.finals is None:
        return []
    places = {seed: place for place, seed in enumerate(study.finals.seeds)}
    front = {trial.architecture.digest for trial in results.front}
    trained = {group[0].architecture.digest: group for group in results.replicates}
    found = []
    for model in study.finals.models:
        arch = space.decode(model.genes)
        complete = sorted(trained.get(arch.digest, ()), key=lambda trial: places.get(trial.seed or 0, len(places)))
        found.append(
            Final(
                model=model,
                architecture=arch,
                trials=tuple(complete),
                val=Spread.of([trial.val_accuracy for trial in complete if trial.val_accuracy is not None]),
                test=Spread.of([trial.test_accuracy for trial in complete if trial.test_accuracy is not None]),
                estimate=results.estimate(complete[0]) if complete else None,
                is_on_front=arch.digest in front,
            )
        )
    return sorted(found, key=lambda final: (not final.is_on_front, space.cost(final.architecture).params))


def rank_correlation(finals: Sequence[Final]) -> RankCorrelation | None:
    """Between accuracy on val in the search and mean accuracy on test; None for fewer than five models with both."""
    pairs = [
        (final.model.val_accuracy, final.test.mean)
        for final in finals
        if final.model.val_accuracy is not None and final.test is not None
    ]
    if len(pairs) < _FEWEST_RANKED:
        return None
    pairs_N2 = np.array(pairs)
    rng = np.random.default_rng(0)
    drawn = (pairs_N2[rng.integers(len(pairs), size=len(pairs))] for _ in range(_RESAMPLES))
    taus = [tau for sample in drawn if not np.isnan(tau := _tau(sample))]
    if not taus:
        return None
    low, high = np.percentile(taus, (_LEAST_INTERVAL, _MOST_INTERVAL))
    return RankCorrelation(_tau(pairs_N2), float(low), float(high), len(pairs))


def final_as_plain(final: Final) -> dict[str, object]:
    """A model as plain values for a program; accuracies lie in [0, 1]."""
    return {
        "search_trial": final.model.trial,
        "references": list(final.model.references),
        "search_val_accuracy": final.model.val_accuracy,
        "trials": [trial.number for trial in final.trials],
        "seeds": [trial.seed for trial in final.trials],
        "val_mean": final.val and final.val.mean,
        "val_sd": final.val and final.val.sd,
        "val_low": final.estimate and final.estimate.low,
        "val_high": final.estimate and final.estimate.high,
        "p_on_front": final.estimate and final.estimate.p_on_front,
        "on_front": final.is_on_front,
        "test_mean": final.test and final.test.mean,
        "test_sd": final.test and final.test.sd,
        "digest": final.architecture.digest,
    }


def _tau(pairs_N2: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return float(kendalltau(pairs_N2[:, 0], pairs_N2[:, 1]).statistic)
