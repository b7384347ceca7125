"""Which settings of a search are replayed."""

from typing import NamedTuple

from pydantic import ValidationError

from metaformer.errors import UserError, explain, unknown_name
from nas.session import proposers, stoppers
from nas.study.budget import Budget
from nas.study.study import Study


class Settings(NamedTuple):
    """What was asked for; None: as the run has it."""

    sampler: str | None = None
    stopper: str | None = None
    devices: int = 8
    budget: str | None = None
    max_trials: int | None = None
    seed: int | None = None

    def check(self) -> None:
        """Check what needs no run.

        Raises:
            UserError: A name is unknown, or the budget has another form.
        """
        for field, name, known in (
            ("sampler", self.sampler, proposers.names()),
            ("stopper", self.stopper, stoppers.names()),
        ):
            if name is not None and name not in known:
                raise UserError(unknown_name(field, name, known))
        if self.budget is not None:
            Budget.parse(self.budget)

    def applied(self, study: Study) -> Study:
        """The run's study under these settings, to be carried out in memory.

        Raises:
            UserError: They do not go with it.
        """
        if self.budget is not None:
            kind, own = Budget.parse(self.budget).device, Budget.parse(study.budget).device
            if kind != own:
                raise UserError(f"budget: must be {own.upper()} time, as the run's is, got {self.budget!r}")
        asked = {name: value for name, value in self._asdict().items() if value is not None and name != "devices"}
        try:
            changed = Study.model_validate(study.model_dump() | asked | {"storage": None, "identity": None})
        except ValidationError as error:
            raise UserError(explain(error, Study)) from None
        proposers.check_objectives(changed.sampler, changed.goals)
        return changed
