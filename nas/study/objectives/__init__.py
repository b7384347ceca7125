"""What a search optimises, by name: accuracy, parameters and MACs unless a study says otherwise.

An objective is one file here: a class under `@register_objective`, which `load` imports below.
"""

from nas.study.objectives.base import (
    ACCURACY,
    Candidate,
    ExactObjective,
    MeasuredObjective,
    Objective,
    Objectives,
    Point,
    choose,
    find,
    measured_names,
    names,
    register_objective,
)

DEFAULT = ("accuracy", "params", "macs")

__all__ = [
    "ACCURACY",
    "DEFAULT",
    "Candidate",
    "ExactObjective",
    "MeasuredObjective",
    "Objective",
    "Objectives",
    "Point",
    "choose",
    "find",
    "measured_names",
    "names",
    "register_objective",
]
