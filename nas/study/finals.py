"""What a search ends with: models that are trained from scratch on a full recipe, each with several seeds."""

from typing import Annotated, Any

from pydantic import Field

from metaformer.specs import Spec
from nas.study.recipe import Fraction

MOST_SEEDS = 100  # far beyond what anybody trains; what is larger was mistyped
SeedOfTraining = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]


class FinalModel(Spec):
    """A model that a search has found, or a hand-designed one beside it."""

    genes: dict[str, Any]  # of the study's space
    trial: Annotated[int, Field(strict=True, ge=0)] | None = None  # of the search; None: it did not train it
    references: tuple[str, ...] = ()  # names of the hand-designed models that it is
    val_accuracy: Fraction | None = None  # that its trial had in the search


class Finals(Spec):
    """The models and the seeds that each is trained with."""

    search: str | None = None  # identity of the run that the models come from; None: of version 0.1
    models: Annotated[tuple[FinalModel, ...], Field(min_length=1)]
    seeds: Annotated[tuple[SeedOfTraining, ...], Field(min_length=1, max_length=MOST_SEEDS)]
