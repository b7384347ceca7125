"""Searches with made-up curves on the real digits, whose finals can be trained for real."""

from pathlib import Path

from metaformer.specs import Stem
from nas.data import default_recipe, open_dataset
from nas.record.run_folder import Run
from nas.study.finals import FinalModel, Finals
from nas.study.study import Study
from search_spaces.space import Limits, SpaceSettings
from tests.nas.runs import make_run, make_study

RESOLUTION = 16
RECIPE = {"epochs": 3, "warmup_epochs": 1, "cooldown_epochs": 0, "batch_size": 256, "precision": "float32"}


def make_search(path: Path, *, fail_every: int = 7, **changes: object) -> Run:
    """A search of small models that came to its end; no weights are there."""
    info = open_dataset("digits", resolution=RESOLUTION).info
    settings = SpaceSettings(
        resolution=RESOLUTION,
        num_classes=info.num_classes,
        width_scale=0.125,
        stem=Stem(kernel=3, stride=2, padding=1),
        limits=Limits(max_macs=800_000),
    )
    fields: dict[str, object] = {
        "settings": settings.model_dump(mode="json"),
        "data": info.name,
        "data_fingerprint": info.fingerprint,
        "references": ("poolformer_s12", "metaformer_id_s12"),
        "recipe": default_recipe(info.name).model_dump(mode="json") | RECIPE,
        "max_trials": 8,
    }
    return make_run(path, fail_every=fail_every, **{**fields, **changes})


def study_of_finals(*, num_seeds: int = 2, **changes: object) -> Study:
    """Three models of the space of `make_study`, one of them designed by hand."""
    study = make_study()
    space = study.make_space()
    arch = space.references()["poolformer_s12"]
    models = (
        FinalModel(genes=space.encode(space.smallest("params")), trial=4, val_accuracy=0.5),
        FinalModel(genes=space.encode(space.smallest("macs")), trial=7, val_accuracy=0.6),
        FinalModel(genes=space.encode(arch), trial=0, references=("poolformer_s12",), val_accuracy=0.7),
    )
    finals = Finals(models=models, seeds=tuple(range(1, num_seeds + 1)))
    fields = {"finals": finals.model_dump(mode="json"), "references": ("poolformer_s12",), "max_trials": None}
    return make_study(**{**fields, **changes})
