"""What a study's complete trials show, as arrays: N trials, C costs."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from nas.record.replicates import by_architecture
from nas.record.trials import TrialRecord
from nas.session.certainty.noise import Floats, Ints
from nas.study.objectives import ACCURACY, Objectives


class Seen(NamedTuple):
    """Accuracies on val in [0, 1], costs of which less is better, and architectures from 0 on."""

    accuracy_N: Floats
    costs_NC: Floats
    group_N: Ints

    @classmethod
    def of(cls, trials: Sequence[TrialRecord], objectives: Objectives, settings: Sequence[int] | None = None) -> Self:
        """What some complete trials show.

        Args:
            settings: How each trial was trained, such as the number of its recipe; those of one architecture are
                replicates within a setting alone. None: all alike.
        """
        points = np.array([objectives.values(trial) for trial in trials])
        is_accuracy = np.array(objectives.names) == ACCURACY
        losses = points * np.where(objectives.is_maximised, -1.0, 1.0)
        groups = _architectures(trials, settings or [0] * len(trials))
        return cls(points[:, is_accuracy][:, 0], losses[:, ~is_accuracy], groups)


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
