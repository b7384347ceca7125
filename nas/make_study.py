"""From flags, a study file and the data's defaults to a study that has been checked."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from metaformer.cost import count_cost
from metaformer.errors import UserError, explain, one_line, shown, unknown_name
from metaformer.specs import Stem
from nas.data import DataInfo, check_processes, check_recipe, default_recipe, fit_of, look
from nas.record.replicates import by_architecture, mean_trial
from nas.record.run_folder import open_run
from nas.session import proposers, stoppers
from nas.session.pareto import front_of
from nas.study.budget import Budget
from nas.study.prior import FEWEST_MODELS, MOST_MODELS, Prior, PriorModel
from nas.study.recipe_files import find_recipe
from nas.study.request import Request, asked_fields, asked_splitting, overlay, recipe_changes, shorten_warmup
from nas.study.splitting import DEFAULT_SPLITTING, Splitting
from nas.study.study import Study, StudyError
from nas.training.checkpoints import absolute
from search_spaces.space import SMALL_IMAGES, SMALL_WIDTHS, Limits, SearchSpace, SpaceSettings, get


class Images(NamedTuple):
    """Which images a study is about."""

    data: str
    resolution: int  # side in pixels that a model sees
    reason: str  # why: a clause for people
    splitting: Splitting = DEFAULT_SPLITTING


def find_images(request: Request, fields: dict[str, Any]) -> Images:
    """The dataset's name, its splits and the side of its images: from flags, study file, or a look at the images.

    Raises:
        StudyError: The resolution in the study file is no whole number, or a field of the splitting breaks a rule.
        DataError: No dataset has this name.
    """
    data = request.data or str(fields.get("data", "digits"))
    settings = fields.get("settings")
    written = settings.get("resolution") if isinstance(settings, dict) else None
    if not isinstance(written, int | None) or isinstance(written, bool):
        raise StudyError(f"settings.resolution: must be a whole number of pixels, got {shown(written)}")
    splitting = asked_splitting(request, fields)
    if request.resolution or written:
        return Images(data, request.resolution or written or 0, "as asked for", splitting)
    return Images(data, *look(data), splitting)


def make_study(request: Request, fields: dict[str, Any], info: DataInfo) -> Study:
    """The study that was asked for: the data's defaults, overlaid by the study file, overlaid by the flags.

    A recipe that was asked for takes the place of the whole of the data's or the study file's.

    Raises:
        StudyError: A field is unknown, missing or breaks a rule.
        RecipeError: The recipe that was asked for is not there, or is none.
        DataError, SpaceError: As the dataset and the space say.
    """
    space_name = str(asked_fields(request).get("space", fields.get("space", "hybrid_stages")))
    settings = default_settings(info, space_name)
    defaults = {
        "space": "hybrid_stages",
        "settings": settings.model_dump(mode="json"),
        "measured_limits": {},
        "data": info.name,
        "data_fingerprint": info.fingerprint,
        "recipe": default_recipe(info.name).model_dump(mode="json"),
        "seed": 0,
    }
    fit = fit_of(info.name, resolution=info.resolution)
    if fit.until is not None and request.max_trials is None and not {"max_trials", "finals"} & fields.keys():
        defaults["until"] = fit.until
    if request.recipe is not None:
        fields = {**fields, "recipe": find_recipe(request.recipe).model_dump(mode="json")}
    merged = overlay(overlay(defaults, fields), asked_fields(request))
    merged["data"], merged["splitting"] = info.name, info.splitting.model_dump(mode="json")
    if asked_splitting(Request(), fields) != info.splitting:
        merged["data_fingerprint"] = info.fingerprint  # what is written is that of other splits
    if isinstance(merged.get("checkpoints"), str):
        merged["checkpoints"] = absolute(merged["checkpoints"])
    if request.epochs:
        shorten_warmup(merged["recipe"])
    merged = overlay(merged, {"recipe": recipe_changes(request)})
    merged["references"] = _references(request.references, merged, get(space_name, settings), fit.references)
    if request.prior is not None:
        merged["prior"] = _prior(Path(request.prior), space_name, fields.get("prior"))
    if "budget" not in merged:
        raise StudyError("budget: must be given, such as --budget 64gpu-days or --budget 6cpu-minutes, got none")
    Budget.parse(str(merged["budget"]))
    try:
        study = Study.model_validate({"sampler": "random", **merged})
    except ValidationError as error:
        raise StudyError(explain(error, Study)) from None
    if "sampler" not in merged:  # it depends on the objectives, which are known only now
        study = study.model_copy(update={"sampler": proposers.default(study.goals)})
    _check(study, info)
    return study


def check_extension(request: Request) -> None:
    """Check that a budget is not both given and extended.

    Raises:
        StudyError: It is.
    """
    if request.extend is not None and request.budget is not None:
        raise StudyError(f"extend: must not be given beside --budget, got {request.extend!r}")


def extended(request: Request, earlier: Study) -> Request:
    """The request with the budget of an earlier study that is larger by what `--extend` says."""
    return replace(request, budget=Budget.parse(earlier.budget).extended(Budget.parse(str(request.extend))))


def describe_recipe(request: Request, fields: dict[str, Any], *, run: str = "the run") -> str:
    """Where the recipe comes from, and what was asked for over it: a clause for people.

    Args:
        run: Words for the run whose fields these are.
    """
    if request.recipe is not None:
        source = f"{request.recipe} (--recipe)"
    elif "recipe" in fields:
        source = f"that of {request.study or run}"
    else:
        source = "the default of the data"
    options = (("epochs", request.epochs), ("batch-size", request.batch_size))
    over = [f"{name.replace('-', '_')} {value} (--{name})" for name, value in options if value is not None]
    over += [f"{name} {text} (--set)" for name, text in request.changes.items()]
    return one_line(source + (f", and over it {', '.join(over)}" if over else ""))


def default_settings(info: DataInfo, space_name: str = "hybrid_stages") -> SpaceSettings:
    """How a space is fitted to the data, by the side of the images that a model sees.

    Above 64 pixels as in the papers. Up to 64 pixels a stem of stride 2 instead of 4, so that the last stage keeps a
    few tokens, where the space takes a stem; a quarter of all widths; and no architecture with more parameters or MACs
    than any hand-designed model has. A dataset can say otherwise (`Fit`).
    """
    settings = SpaceSettings(resolution=info.resolution, num_classes=info.num_classes)
    if info.resolution > SMALL_IMAGES:
        return settings
    fit = fit_of(info.name, resolution=info.resolution)
    small = settings.model_copy(update={"width_scale": fit.width_scale or SMALL_WIDTHS})
    if get(space_name).takes_stem:
        small = small.model_copy(update={"stem": fit.stem or Stem(kernel=3, stride=2, padding=1)})
    limits = Limits(max_macs=fit.max_macs) if fit.max_macs else _limits_of_references(get(space_name, small))
    return small.model_copy(update={"limits": limits})


def _limits_of_references(space: SearchSpace) -> Limits:
    """Limits that the largest hand-designed models of a space just meet; none where it has none."""
    costs = [count_cost(arch) for arch in space.references().values()]
    if not costs:
        return Limits()
    return Limits(max_params=max(cost.params for cost in costs), max_macs=max(cost.macs for cost in costs))


def _references(
    asked: str | None, merged: dict[str, Any], space: SearchSpace, fitted: tuple[str, ...] | None
) -> list[str]:
    known = list(space.references())
    if asked is None and "references" in merged:
        names = merged["references"]
    elif asked is None and fitted is not None:
        names = [name for name in fitted if name in known]
    elif asked in (None, "all"):
        names = known
    else:
        names = [] if asked == "none" else [name.strip() for name in str(asked).split(",")]
    if not isinstance(names, list):
        raise StudyError(f"references: must be a list of names, got {shown(names)}")
    for name in names:
        if name not in known:
            raise StudyError(unknown_name("references", str(name), ["all", "none", *known]))
    return list(names)


def _prior(path: Path, space_name: str, known: object) -> object:
    """What the search in a folder has found; as it is known where a study has begun with it.

    Raises:
        StudyError: There is no such search, it is of another space, or it has trained too few architectures.
    """
    try:
        run = open_run(path)
    except UserError as error:
        raise StudyError(f"prior: {error}") from None
    with closing(run.record):
        own = run.study.identity
        if isinstance(known, dict) and (known.get("identity"), own or known.get("run")) == (own, own or str(path)):
            return known
        if run.study.space != space_name:
            raise StudyError(f"prior: must be a search of {space_name}, got one of {run.study.space} in {str(path)!r}")
        means = [mean_trial(trials) for trials in by_architecture(run.record.complete)]
        if len(means) < FEWEST_MODELS:
            raise StudyError(
                f"prior: must have trained {FEWEST_MODELS} architectures to the end, got {len(means)} in {str(path)!r}"
            )
        front = {trial.number for trial in front_of(means, run.study.goals)}
        newest = sorted(means, key=lambda trial: (trial.number in front, trial.number))[-MOST_MODELS:]
        models = [
            PriorModel(genes=run.space.encode(trial.architecture), val_accuracy=trial.val_accuracy)
            for trial in sorted(newest, key=lambda trial: trial.number)
            if trial.val_accuracy is not None
        ]
    return Prior(run=str(path), identity=own, models=tuple(models)).model_dump(mode="json")


def check_data(study: Study, info: DataInfo) -> None:
    """Check that the data are those of the study, divided as it says.

    Raises:
        StudyError: They are not.
    """
    if study.data_fingerprint != info.fingerprint:
        raise StudyError(
            f"data: must hold what the study was made with (fingerprint {study.data_fingerprint}), "
            f"got {info.name!r} with {info.fingerprint}"
        )


def _check(study: Study, info: DataInfo) -> None:
    """What the fields of a study must be to each other and to the data."""
    if study.sampler not in proposers.names():
        raise StudyError(unknown_name("sampler", study.sampler, proposers.names()))
    if study.stopper not in stoppers.names():
        raise StudyError(unknown_name("stopper", study.stopper, stoppers.names()))
    check_data(study, info)
    if study.settings.num_classes != info.num_classes:
        raise StudyError(
            f"settings.num_classes: must be {info.num_classes}, as in {info.name!r}, got {study.settings.num_classes}"
        )
    check_recipe(study.data, study.recipe)
    field = "gpus_per_model" if study.gpus_per_model else "cpus_per_model"
    check_processes(field, study.processes, study.recipe, info.num_images["train"])
    space = study.make_space()
    space.check_limits()
    for model in study.finals.models if study.finals else ():
        try:
            space.decode(model.genes)
        except UserError as error:
            raise StudyError(f"finals.models: {one_line(str(error))}") from None
    if study.prior is not None:
        proposers.check_prior(study.sampler)
        for known in study.prior.models:
            try:
                space.decode(known.genes)
            except UserError as error:
                raise StudyError(f"prior.models: {one_line(str(error))}") from None
    proposers.check_objectives(study.sampler, study.goals)
