"""From flags, a study file and the data's defaults to a study."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from metaformer.errors import explain, unknown_name
from metaformer.specs import Stem
from nas import halving, samplers
from nas.budget import Budget
from nas.checkpoint_files import absolute
from nas.data import DataInfo, check_recipe, default_recipe, default_resolution
from nas.study import Study, StudyError
from search_spaces.space import Limits, SearchSpace, SpaceSettings, get

_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_MOST_DIGITS = 20
_FITTED: dict[str, dict[str, object]] = {  # by dataset, what differs from the rule for its image size
    "digits": {"width_scale": 0.125, "limits": Limits(max_macs=3_500_000)},  # seconds a trial on one core; fits S12
}
_SMALL_IMAGES = 64  # pixels, up to which the stem takes every second one rather than every fourth


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line; None: not mentioned."""

    space: str | None = None
    budget: str | None = None
    extend: str | None = None
    data: str | None = None
    references: str | None = None
    max_params: str | None = None
    max_macs: str | None = None
    resolution: int | None = None
    width_scale: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    sampler: str | None = None
    stopper: str | None = None
    seed: int | None = None
    max_trials: int | None = None
    workers: int | None = None
    cpus_per_trial: int | None = None
    gpus_per_trial: str | None = None
    storage: str | None = None
    checkpoints: str | None = None
    bad_images: str | None = None
    study: Path | None = None


def data_and_resolution(request: Request, fields: dict[str, Any]) -> tuple[str, int]:
    """The dataset's name and the side of its images, from the flags, the study file or the defaults.

    Raises:
        StudyError: The resolution in the study file is no whole number.
        DataError: No dataset has this name.
    """
    data = request.data or str(fields.get("data", "digits"))
    settings = fields.get("settings")
    written = settings.get("resolution") if isinstance(settings, dict) else None
    if not isinstance(written, int | None):
        raise StudyError(f"settings.resolution: must be a whole number of pixels, got {written!r}")
    return data, request.resolution or written or default_resolution(data)


def make_study(request: Request, fields: dict[str, Any], info: DataInfo) -> Study:
    """The study that was asked for: the data's defaults, overlaid by the study file, overlaid by the flags.

    Raises:
        StudyError: A field is unknown, missing or breaks a rule.
        DataError, SpaceError: As the dataset and the space say.
    """
    defaults = {
        "space": "hybrid_stages",
        "settings": default_settings(info).model_dump(mode="json"),
        "data": info.name,
        "data_fingerprint": info.fingerprint,
        "recipe": default_recipe(info.name).model_dump(mode="json"),
        "sampler": "tpe",
        "seed": 0,
    }
    merged = _overlay(_overlay(defaults, fields), _flags(request))
    merged["data"] = info.name
    if isinstance(merged.get("checkpoints"), str):
        merged["checkpoints"] = absolute(merged["checkpoints"])
    if request.epochs:
        _shorten_warmup(merged["recipe"])
    space_name = str(merged["space"])
    get(space_name)  # says which names there are
    merged["references"] = _references(request.references, merged, get(space_name))
    if "budget" not in merged:
        raise StudyError("budget: must be given, such as --budget 64gpu-days or --budget 6cpu-minutes, got none")
    Budget.parse(str(merged["budget"]))
    try:
        study = Study.model_validate(merged)
    except ValidationError as error:
        raise StudyError(explain(error, Study)) from None
    _check(study, info)
    return study


def default_settings(info: DataInfo) -> SpaceSettings:
    """How a space is fitted to the data: as in the papers for large images, with a finer stem and slimmer for small."""
    settings = SpaceSettings(resolution=info.resolution, num_classes=info.num_classes)
    if info.resolution > _SMALL_IMAGES:
        return settings
    small = settings.model_copy(update={"stem": Stem(kernel=3, stride=2, padding=1), "width_scale": 0.25})
    return small.model_copy(update=_FITTED.get(info.name, {}))


def parse_count(field: str, text: str) -> int:
    """A number such as 4500000, 4.5M or 1.8G.

    Raises:
        StudyError: The text has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)", text.strip())
    count = round(float(match[1]) * _FACTORS[match[2]]) if match and len(text) < _MOST_DIGITS else 0
    if count < 1:
        raise StudyError(f"{field}: must be a number above 0, such as 12M or 1.8G, got {text!r}")
    return count


def _flags(request: Request) -> dict[str, Any]:
    """The fields of a study that the command line sets."""
    settings: dict[str, Any] = {"resolution": request.resolution, "width_scale": request.width_scale}
    limits = {
        field: parse_count(field, text)
        for field, text in (("max_params", request.max_params), ("max_macs", request.max_macs))
        if text is not None
    }
    recipe: dict[str, Any] = {"epochs": request.epochs, "batch_size": request.batch_size}
    plain = {
        field: getattr(request, field)
        for field in (
            *("space", "budget", "sampler", "stopper", "seed", "max_trials", "storage", "checkpoints", "bad_images"),
            *("workers", "cpus_per_trial", "gpus_per_trial"),
        )
    }
    return _given({**plain, "settings": {**_given(settings), "limits": limits}, "recipe": _given(recipe)})


def _shorten_warmup(recipe: dict[str, Any]) -> None:
    """A few epochs asked for on the command line leave room for a warm-up no longer than all but one."""
    if isinstance(recipe["warmup_epochs"], int):  # else the study's own check says what is wrong
        recipe["warmup_epochs"] = min(recipe["warmup_epochs"], recipe["epochs"] - 1)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in fields.items() if value is not None}


def _overlay(under: dict[str, Any], over: dict[str, Any], path: str = "") -> dict[str, Any]:
    """`under` with the values of `over`, mapping by mapping.

    Raises:
        StudyError: `over` has something else where `under` has a mapping.
    """
    merged = dict(under)
    for field, value in over.items():
        below = merged.get(field)
        if isinstance(below, dict):
            if not isinstance(value, dict):
                raise StudyError(f"{path}{field}: must be a mapping of fields, got {value!r}")
            merged[field] = _overlay(below, value, f"{path}{field}.")
        else:
            merged[field] = value
    return merged


def _references(asked: str | None, merged: dict[str, Any], space: SearchSpace) -> list[str]:
    known = list(space.references())
    if asked is None and "references" in merged:
        names = merged["references"]
    elif asked in (None, "all"):
        names = known
    else:
        names = [] if asked == "none" else [name.strip() for name in str(asked).split(",")]
    if not isinstance(names, list):
        raise StudyError(f"references: must be a list of names, got {names!r}")
    for name in names:
        if name not in known:
            raise StudyError(unknown_name("references", str(name), ["all", "none", *known]))
    return list(names)


def _check(study: Study, info: DataInfo) -> None:
    """What the fields of a study must be to each other and to the data."""
    if study.sampler not in samplers.names():
        raise StudyError(unknown_name("sampler", study.sampler, samplers.names()))
    if study.stopper not in halving.names():
        raise StudyError(unknown_name("stopper", study.stopper, halving.names()))
    if study.data_fingerprint != info.fingerprint:
        raise StudyError(
            f"data: must hold what the study was made with (fingerprint {study.data_fingerprint}), "
            f"got {info.name!r} with {info.fingerprint}"
        )
    if study.settings.num_classes != info.num_classes:
        raise StudyError(
            f"settings.num_classes: must be {info.num_classes}, as in {info.name!r}, got {study.settings.num_classes}"
        )
    check_recipe(study.data, study.recipe)
    study.make_space().check_limits()
