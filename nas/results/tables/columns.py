"""All trials as the columns that the page's own code reads: it fills the table and says what marks are from them.

A column of N trials is packed as plotly packs arrays: `dtype` and `bdata`, the bytes in base64; what is missing is NaN.
Texts are packed as the different ones and, for each trial, the place of its own.
"""

import base64
import shlex
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.record.trials import TrialRecord
from nas.results.charts.colours import MIXER_COLOURS, OTHER_COLOUR
from nas.results.results import Results, block_line, stage_mixers_text
from nas.results.words import objective_text

TABLE = {  # heading of each column of the table of all trials: its name, and how its cells are written
    "trial": ("trial", "count"),
    "state": ("state", "text"),
    "hand-designed": ("reference", "text"),
    "val": ("val", "percent"),
    "test": ("test", "percent"),
    "p front": ("p_on_front", "probability"),
    "parameters": ("params", "count"),
    "MACs": ("macs", "count"),
    "family": ("family", "text"),
    "mixers": ("mixers", "text"),
    "epochs": ("epochs", "count"),
    "device-s": ("device_seconds", "seconds"),
    "why it ended": ("reason", "text"),
}
_NUMBERS: dict[str, Callable[[TrialRecord], float | None]] = {
    "trial": lambda trial: trial.number,
    "val": lambda trial: trial.val_accuracy,
    "test": lambda trial: trial.test_accuracy,
    "params": lambda trial: trial.params,
    "macs": lambda trial: trial.macs,
    "epochs": lambda trial: trial.num_epochs,
    "device_seconds": lambda trial: trial.device_seconds,
}
_KINDS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32)  # the smallest first


def table_of(results: Results) -> dict[str, tuple[str, str]]:
    """What the table shows of the trials of a run; families are those of a union of spaces."""
    return {heading: column for heading, column in TABLE.items() if heading != "family" or results.families}


def columns_of(results: Results) -> dict[str, object]:
    """The columns by name, those of each stage, how the table shows them, and the command that exports a trial."""
    shown = {trial.number: trial for trial in results.complete}
    trials = [shown.get(trial.number, trial) for trial in results.trials]
    estimates = [results.estimate(trial) for trial in trials]
    columns: dict[str, object] = {name: packed([of(trial) for trial in trials]) for name, of in _NUMBERS.items()}
    for name in ("low", "high", "p_on_front"):
        columns[name] = packed([None if estimate is None else getattr(estimate, name) for estimate in estimates])
    texts = {
        "state": [trial.state.value for trial in trials],
        "reference": [trial.reference or "" for trial in trials],
        "standing": [results.standings.get(trial.number, "") for trial in trials],
        "reason": [trial.reason or "" for trial in trials],
        "family": [results.families.get(trial.number, "") for trial in trials],
        "blocks": [block_line(trial.architecture) for trial in trials],
        "measured": [
            "".join(f", {goal.noun} {objective_text(goal, trial)}" for goal in results.goals.measured)
            for trial in trials
        ],
    }
    return {
        "columns": columns | {name: packed_texts(of_trials) for name, of_trials in texts.items()},
        "stages": _stages(results, trials),
        "table": list(table_of(results).values()),
        "command": f"python -m nas.export {shlex.quote(str(results.run.folder.path))} --pick",
    }


def _stages(results: Results, trials: Sequence[TrialRecord]) -> list[dict[str, object]]:
    """Mixer with its colour, depth and width of each stage; of a trial that has fewer stages None and 0."""
    stages = [trial.architecture.stages for trial in trials]
    coloured = {
        id(stage): (stage_mixers_text(stage), MIXER_COLOURS.get(stage.mixer.kind, OTHER_COLOUR))
        for stage in results.stages
    }
    found = []
    for place in range(max(map(len, stages), default=0)):
        of_place = [each[place] if place < len(each) else None for each in stages]
        found.append(
            {
                "mixer": packed_texts([stage and coloured[id(stage)] for stage in of_place]),
                "depth": packed([stage.depth if stage else 0 for stage in of_place]),
                "width": packed([stage.width if stage else 0 for stage in of_place]),
            }
        )
    return found


def packed(values: Sequence[float | None]) -> dict[str, str]:
    """Numbers in the smallest type that holds them all."""
    array: NDArray[Any] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    if len(array) and np.isfinite(array).all() and (array == np.round(array)).all():
        low, high = array.min(), array.max()
        limits = ((kind, np.iinfo(kind)) for kind in _KINDS)
        array = array.astype(next((kind for kind, of in limits if of.min <= low and high <= of.max), np.float64))
    return {
        "dtype": f"{array.dtype.kind}{array.dtype.itemsize}",
        "bdata": base64.b64encode(array.tobytes()).decode("ascii"),
    }


def packed_texts(values: Sequence[Hashable]) -> dict[str, object]:
    """Texts, or other values of JSON, each once, and for each trial the place of its own."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return {"texts": list(places), "codes": packed([places[value] for value in values])}
