"""What an earlier search found, from which another one starts."""

from typing import Annotated, Any

from pydantic import Field

from metaformer.specs import Spec
from nas.study.recipe import Fraction

FEWEST_MODELS, MOST_MODELS = 5, 300  # fewer teach nothing; more make a study file that nobody can read


class PriorModel(Spec):
    """An architecture that the earlier search has trained to the end."""

    genes: dict[str, Any]  # of the study's space
    val_accuracy: Fraction  # there: on its images, by its recipe; the mean of its seeds


class Prior(Spec):
    """An earlier search of the same space, on whatever images and by whatever recipe."""

    run: str  # its folder, for people
    identity: str | None = None  # of the run; None: of version 0.1
    models: Annotated[tuple[PriorModel, ...], Field(min_length=FEWEST_MODELS, max_length=MOST_MODELS)]
