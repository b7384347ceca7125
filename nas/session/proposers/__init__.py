"""What to try next: proposers by the name that a study gives. Optuna and SciPy are loaded where they are used."""

from collections.abc import Callable

from metaformer.errors import UserError, check_new_name, shown, unknown_name
from nas.session.proposers.base import Proposer
from nas.session.proposers.regularized_evolution import RegularizedEvolution
from nas.study.objectives import Objectives
from nas.study.prior import Prior
from search_spaces.space import SearchSpace

__all__ = ["Proposer", "check_objectives", "check_prior", "default", "make_proposer", "names", "register_proposer"]

Maker = Callable[[SearchSpace, Objectives], Proposer]


def _optuna(sampler: str) -> Maker:
    def make(space: SearchSpace, objectives: Objectives) -> Proposer:
        from nas.session.proposers.optuna_samplers import OptunaProposer

        return OptunaProposer(sampler, space, objectives)

    return make


def _exact_cost(
    space: SearchSpace, objectives: Objectives, prior: Prior | None = None, *, per_trial: bool = False
) -> Proposer:
    from nas.session.proposers.exact_cost import ExactCost

    return ExactCost(space, objectives, prior, per_trial=per_trial)


_MAKERS: dict[str, Maker] = {
    **{sampler: _optuna(sampler) for sampler in ("tpe", "nsga2", "random")},
    "exact_cost": _exact_cost,
    "regularized_evolution": RegularizedEvolution,
}


def register_proposer(name: str, make: Maker) -> None:
    """Let a study name a proposer.

    Raises:
        UserError: The name is taken, or what is registered cannot be called.
    """
    check_new_name("sampler", name, _MAKERS)
    if not callable(make):
        raise UserError(f"sampler: must be a function that makes a Proposer, got {shown(make)}")
    _MAKERS[name] = make


def names() -> list[str]:
    """Names of all proposers."""
    return list(_MAKERS)


def default(objectives: Objectives) -> str:
    """The proposer of a study that names none: the one that finds most, where it can take the objectives."""
    try:
        check_objectives("exact_cost", objectives)
    except UserError:
        return "tpe"
    return "exact_cost"


def check_objectives(name: str, objectives: Objectives) -> None:
    """Check what a proposer of that name can take, before there is anything to propose.

    Raises:
        UserError: It cannot take these objectives.
    """
    if name == "exact_cost":
        from nas.session.proposers.exact_cost import exact_costs

        exact_costs(objectives)


def check_prior(name: str) -> None:
    """Check that a proposer of that name can start from an earlier search.

    Raises:
        UserError: It cannot.
    """
    if name != "exact_cost":
        raise UserError(f"prior: must go with the sampler exact_cost, got {shown(name)}")


def make_proposer(
    name: str, space: SearchSpace, objectives: Objectives, prior: Prior | None = None, *, per_trial: bool = False
) -> Proposer:
    """The proposer of that name.

    Args:
        prior: An earlier search to start from; `exact_cost` alone does.
        per_trial: Whether the search pays for trials, not for device time; `exact_cost` alone asks.
    Raises:
        UserError: There is none.
    """
    if name not in _MAKERS:
        raise UserError(unknown_name("sampler", name, _MAKERS))
    if name == "exact_cost":
        return _exact_cost(space, objectives, prior, per_trial=per_trial)
    return _MAKERS[name](space, objectives)
