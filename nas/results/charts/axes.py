"""Objectives as axes of the report's charts: titles, scales and ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.record.trials import TrialRecord
from nas.results.results import Results
from nas.study.objectives import ACCURACY, ExactObjective, Objective, find
from nas.study.objectives.units import short_count

_FEWEST_TICKS = 4
_STEPS_OF_DECADE = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7))
Values = NDArray[np.float64]
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Axis:
    """One objective of complete trials along an axis; accuracy is shown in percent."""

    objective: Objective

    @property
    def title(self) -> str:
        return self.objective.title

    @property
    def is_maximised(self) -> bool:
        return self.objective.is_maximised

    @property
    def is_logarithmic(self) -> bool:
        return self.objective.is_logarithmic

    def value(self, trial: TrialRecord) -> float:
        """What the axis shows of a trial.

        Raises:
            ValueError: The trial's value is not known.
        """
        value = self.objective.value(trial)
        if value is None:
            raise ValueError(f"{self.objective.name}: must be known of trial {trial.number}, got none")
        return 100 * value if self.objective.name == ACCURACY else value

    def values(self, trials: Sequence[TrialRecord]) -> Values:
        """What the axis shows of some trials; ValueError as above."""
        return np.array([self.value(trial) for trial in trials], dtype=np.float64)

    def of(self, results: Results) -> Values:
        """What it shows of a run's complete trials."""
        values = results.column(self.objective)
        return 100 * values if self.objective.name == ACCURACY else values

    def losses(self, values: Values) -> Values:
        """Values with their signs changed where more is better."""
        return -values if self.is_maximised else values

    def position(self, trial: TrialRecord) -> float:
        """Where plotly puts a trial on the axis."""
        return self.place(self.value(trial))

    def positions(self, values: Values) -> Values:
        """Where plotly puts some values on the axis."""
        return np.log10(values) if self.is_logarithmic else values

    def place(self, value: float) -> float:
        """Where plotly puts a value on the axis."""
        return math.log10(value) if self.is_logarithmic else value

    def style(self, values: Values) -> dict[str, object]:
        """Title, scale and ticks of an axis that shows these values."""
        style: dict[str, object] = {"title": {"text": self.title}}
        if not self.is_logarithmic:
            return style
        ticks = self.log_ticks(values)
        return style | {"type": "log", "tickvals": ticks, "ticktext": [self.tick_text(tick) for tick in ticks]}

    def log_ticks(self, values: Values) -> list[float]:
        """Round values around these, for a logarithmic axis."""
        return log_ticks(float(values.min()), float(values.max()))

    def tick_text(self, value: float) -> str:
        """A round value: counts as `1.5 M`, others as plain numbers, since the title has their unit."""
        if not isinstance(self.objective, ExactObjective):
            return f"{value:g}"
        unit = short_count(value).partition(" ")[2]
        return f"{value / _UNITS[unit]:g} {unit}".strip()


ACCURACY_AXIS = Axis(find(ACCURACY))
PARAMS_AXIS = Axis(find("params"))


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers around a range of positive values, few enough to be read on a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in _STEPS_OF_DECADE:
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        if sum(low <= tick <= high for tick in ticks) >= _FEWEST_TICKS:
            return ticks
    return _linear_ticks(low, high) if high > low else ticks


def _linear_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten around a range that is narrower than a decade."""
    widest = (high - low) / _FEWEST_TICKS
    power = 10.0 ** math.floor(math.log10(widest))
    step = max((factor * power for factor in (1, 2, 5) if factor * power <= widest), default=power)
    return [number * step for number in range(math.floor(low / step), math.ceil(high / step) + 1) if number > 0]
