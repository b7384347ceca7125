"""From a search to the study that trains its best models to the end."""

from dataclasses import dataclass
from typing import Any

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from metaformer.errors import UserError, shown, unknown_name
from nas.data import open_dataset
from nas.launch import Order
from nas.make_study import Images, check_data, check_extension, describe_recipe, extended, make_study
from nas.record.run_folder import Run, RunFolder, check_name
from nas.record.trials import TrialRecord
from nas.results.results import Results
from nas.study.finals import MOST_SEEDS, FinalModel, Finals
from nas.study.request import Request, asked_splitting
from nas.study.study import Study, StudyError

NAME = "finish"  # of the folder in that of the search
_SEEDS = 3
_MOST_DIGITS = 12  # of a trial's number
_MOST_NAMED = 10  # of the front, in a line
# Of the search: what is its own, and what suits its short trainings.
_NOT_TAKEN = {"identity", "storage", "storage_name", "checkpoints", "budget", "confirm", "max_trials", "prior"}
_NOT_TAKEN |= {"until"}  # models that were asked for are all trained
_NOT_TAKEN |= {"measured_limits", "workers", "cpus_per_trial", "gpus_per_trial", "cpus_per_model", "gpus_per_model"}


@dataclass(frozen=True)
class Asked:
    """What was asked for beside the study's own fields; None: not mentioned."""

    models: str | None = None  # front, or numbers of trials with commas
    references: str | None = None  # all, none, or names with commas
    seeds: int | None = None
    name: str | None = None


def order_finals(search: Run, asked: Asked, request: Request) -> Order:
    """The study of a search's finals, which goes on where its folder has one already.

    Args:
        request: Recipe, budget, devices and storage, as a search takes them.
    Raises:
        UserError: Something asked for cannot be done, or the search has no models to train.
    """
    check_extension(request)
    folder = RunFolder(search.folder.path / check_name(NAME if asked.name is None else asked.name))
    if search.study.finals is not None:
        raise StudyError(f"run: must be a search, got {shown(str(search.folder.path))}, which trains finals itself")
    earlier = Study.from_file(folder.study_file) if folder.study_file.exists() else None
    if earlier is not None and earlier.finals is None:
        raise StudyError(f"name: must not be that of a search, got {shown(str(folder.path))}")
    if earlier is not None:
        fields = earlier.model_dump(mode="json")
        request = request if request.extend is None else extended(request, earlier)
    elif request.extend is not None:
        raise StudyError(f"extend: must be of trainings that have begun, got none in {shown(str(folder.path))}")
    else:
        fields = search.study.model_dump(mode="json", exclude=_NOT_TAKEN)
        recipe = search.record.notes.whole_recipe or search.study.recipe
        fields["recipe"] = recipe.model_dump(mode="json") | {"precision": "auto"}  # chosen again, by these models
        fields["splitting"]["images_per_class"] = None  # the limit is one of proxies
    finals = _finals(search, asked, None if earlier is None else earlier.finals)
    fields |= {
        "finals": finals.model_dump(mode="json"),
        "references": [name for model in finals.models for name in model.references],
        "stopper": "none",
    }
    study, settings = search.study, search.study.settings
    splitting = asked_splitting(request, fields)
    info = open_dataset(study.data, resolution=settings.resolution, splitting=splitting).info
    if earlier is None and splitting != study.splitting:
        check_data(study, open_dataset(study.data, resolution=settings.resolution, splitting=study.splitting).info)
        fields["data_fingerprint"] = info.fingerprint
    made = make_study(request, fields, info)
    folder = RunFolder(folder.path, made.checkpoints)
    images = Images(study.data, settings.resolution, "as in the search", splitting)
    was = " before its budget shortened it" if search.record.notes.whole_recipe else ""
    source = describe_recipe(request, fields, run="the run" if earlier else f"the search{was}")
    return Order(made, folder, info, images, source, said=[])


def _finals(search: Run, asked: Asked, earlier: Finals | None) -> Finals:
    """The models and seeds asked for, or those of the study that goes on."""
    number = (len(earlier.seeds) if earlier else _SEEDS) if asked.seeds is None else asked.seeds
    if not 1 <= number <= MOST_SEEDS:
        raise UserError(f"seeds: must be a whole number from 1 to {MOST_SEEDS}, got {number}")
    own = search.study.seed  # by which the search chose
    step = -1 if own + number >= 2**63 else 1  # a seed has 64 bits
    seeds = tuple(own + step * place for place in range(1, number + 1))
    if earlier is not None and asked.models is None and asked.references is None:
        return earlier.model_copy(update={"seeds": seeds})
    results = Results(search)
    known = _known_references(results, asked.references)
    archs = {trial.architecture.digest: trial.architecture for trial in _chosen(results, asked.models)}
    archs |= {arch.digest: arch for arch in known.values()}
    names: dict[str, tuple[str, ...]] = {arch.digest: names for names, arch in known.items()}
    if not archs:
        raise UserError("models: must name at least one model, got none")
    complete = {trial.architecture.digest: trial for trial in results.complete}
    models = [
        _model(search, arch, complete.get(arch.digest), names.get(arch.digest, ()))
        for arch in sorted(archs.values(), key=lambda arch: count_cost(arch).macs)
    ]
    return Finals(search=search.study.identity, models=tuple(models), seeds=seeds)


def _model(search: Run, arch: Architecture, trial: TrialRecord | None, names: tuple[str, ...]) -> FinalModel:
    genes: dict[str, Any] = search.space.encode(arch)
    return FinalModel(
        genes=genes,
        trial=None if trial is None else trial.number,
        references=names if trial is None else trial.references or names,
        val_accuracy=None if trial is None else trial.val_accuracy,
    )


def _chosen(results: Results, models: str | None) -> list[TrialRecord]:
    """The complete trials that were asked for."""
    complete = {trial.number: trial for trial in results.run.record.complete}
    if not complete:
        raise StudyError(
            f"run: must have a complete trial, got none of {len(results.run.record.trials)} in "
            f"{shown(str(results.run.folder.path))}"
        )
    if models in (None, "front"):
        return results.front
    chosen = []
    for text in str(models).split(","):
        name = text.strip()
        number = int(name) if name.isascii() and name.isdigit() and len(name) <= _MOST_DIGITS else -1
        if number not in complete:
            front = ", ".join(f"{trial.number}" for trial in results.front[:_MOST_NAMED])
            rule = "must be front, or numbers of complete trials with commas"
            raise UserError(f"models: {rule}, got {shown(name)}; on the front: {front}")
        chosen.append(complete[number])
    return chosen


def _known_references(results: Results, asked: str | None) -> dict[tuple[str, ...], Architecture]:
    """The hand-designed models that were asked for, or that the search has trained, by all their names."""
    if asked is None:
        trained = results.trained_references
        return {trial.references: trial.architecture for trial in trained}
    known = list(results.run.space.references())
    names = known if asked == "all" else [] if asked == "none" else [name.strip() for name in asked.split(",")]
    for name in names:
        if name not in known:
            raise UserError(unknown_name("references", name, ["all", "none", *known]))
    distinct = results.run.space.distinct_references(names)
    over = [
        names[0] for names, arch in distinct.items() if not results.run.study.settings.limits.allow(count_cost(arch))
    ]
    if over and asked != "all":
        raise UserError(f"references: must be within the limits of the search, got {shown(over[0])}")
    return {names: arch for names, arch in distinct.items() if names[0] not in over}
