"""Costs in closed form: parameters and multiply-accumulates."""

from metaformer.cost import Cost
from nas.study.objectives.base import Candidate, ExactObjective, register_objective
from nas.study.objectives.units import short_count


@register_objective("params")
class Params(ExactObjective):
    """Parameters of the model."""

    metric = "params"
    title = "parameters"
    noun = "parameters"
    cost_name = "params"

    def of(self, cost: Cost) -> int:
        return cost.params

    def value(self, candidate: Candidate) -> float | None:
        return candidate.params

    def text(self, value: float) -> str:
        return f"{short_count(value)} parameters"


@register_objective("macs")
class Macs(ExactObjective):
    """Multiply-accumulates of one image."""

    metric = "macs"
    title = "MACs per image"
    noun = "MACs"
    cost_name = "macs"

    def of(self, cost: Cost) -> int:
        return cost.macs

    def value(self, candidate: Candidate) -> float | None:
        return candidate.macs

    def text(self, value: float) -> str:
        return f"{short_count(value)} MACs"
