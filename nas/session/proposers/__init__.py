"""What to try next: proposers by the name that a study gives. Optuna is loaded by its own proposers only."""

from metaformer.errors import UserError, unknown_name
from nas.session.proposers.base import Proposer
from nas.study.objectives import Objectives
from search_spaces.space import SearchSpace

__all__ = ["Proposer", "make_proposer", "names"]

_OPTUNA = ("tpe", "nsga2", "random")


def names() -> list[str]:
    """Names of all proposers."""
    return [*_OPTUNA, "regularized_evolution"]


def make_proposer(name: str, space: SearchSpace, objectives: Objectives) -> Proposer:
    """The proposer of that name.

    Raises:
        UserError: There is none.
    """
    if name in _OPTUNA:
        from nas.session.proposers.optuna_samplers import OptunaProposer

        return OptunaProposer(name, space, objectives)
    if name == "regularized_evolution":
        from nas.session.proposers.regularized_evolution import RegularizedEvolution

        return RegularizedEvolution(space, objectives)
    raise UserError(unknown_name("sampler", name, names()))
