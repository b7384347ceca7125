"""What was asked for on the command line, as fields of a study."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from metaformer.documents import exists, parse_mapping, read_text
from metaformer.errors import UserError, check_type, explain, one_line, shown, unknown_name
from nas.study.objectives import MeasuredObjective, find, measured_names
from nas.study.splitting import DEFAULT_SPLITTING, Splitting
from nas.study.study import Study, StudyError

_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_MOST = 10**15
_CHANGE = re.compile(r"recipe((?:\.[^.=\s]+){1,3})=(.*\S.*)", re.DOTALL)


# Options of the program that are no fields of a request, and fields that are said anew for each run.
PROGRAM = {
    "runs": "str",
    "loaders": "int",
    "ray_address": "str",
    "tracker": "str",
    "cache": "str",
    "cache_limit": "str",
}
_NOT_OF_A_TEAM = {"extend", "study", "changes", "measured_limits"}


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
    recipe: str | None = None  # a name, or the path of a file
    changes: Mapping[str, str] = field(default_factory=dict)  # of the recipe: values as typed, such as epochs: 30
    epochs: int | None = None
    batch_size: int | None = None
    sampler: str | None = None
    prior: str | None = None  # the folder of an earlier run
    stopper: str | None = None
    seed: int | None = None
    until: str | None = None  # budget, converged or a part of the hypervolume, such as 0.5%
    confirm: str | None = None  # off, auto or a part of the budget, such as 20%
    max_trials: int | None = None
    workers: int | None = None
    cpus_per_trial: int | None = None
    gpus_per_trial: str | None = None
    cpus_per_model: int | None = None
    gpus_per_model: int | None = None
    objectives: str | None = None  # names with commas
    measured_limits: Mapping[str, str] = field(default_factory=dict)  # by objective, such as latency: 3ms
    storage: str | None = None
    checkpoints: str | None = None
    bad_images: str | None = None
    checkpoint_every: str | None = None  # such as 5m, or never
    val_fraction: float | None = None
    images_per_class: int | None = None
    split_seed: int | None = None
    study: Path | None = None

    def named_data(self) -> str:
        """The images that were asked for.

        Raises:
            UserError: None were.
        """
        if self.data is None:
            raise UserError("data: must be named, by --data or in nas.yaml")
        return self.data


# Fields that a study has under the same name, and that need no reading.
_PLAIN = tuple(
    field.name
    for field in fields(Request)
    if field.name in Study.model_fields
    and field.name not in ("data", "references", "recipe", "objectives", "measured_limits", "prior")
)


def asked_fields(request: Request) -> dict[str, Any]:
    """The fields of a study that the command line sets."""
    settings: dict[str, Any] = {"resolution": request.resolution, "width_scale": request.width_scale}
    limits = {
        name: parse_count(name, text)
        for name, text in (("max_params", request.max_params), ("max_macs", request.max_macs))
        if text is not None
    }
    recipe: dict[str, Any] = {"epochs": request.epochs, "batch_size": request.batch_size}
    plain = {name: getattr(request, name) for name in _PLAIN}
    objectives = None if request.objectives is None else [name.strip() for name in request.objectives.split(",")]
    return _given(
        {
            **plain,
            "settings": {**_given(settings), "limits": limits},
            "recipe": _given(recipe),
            "objectives": objectives,
            "measured_limits": {name: _parse_limit(name, text) for name, text in request.measured_limits.items()},
        }
    )


def says_how_long(request: Request) -> bool:
    """Whether a field that decides how long a training is was asked for."""
    asked = (request.recipe, request.epochs, request.batch_size, request.images_per_class, request.max_macs)
    return any(field is not None for field in asked) or bool(request.changes)


def asked_splitting(request: Request, fields: Mapping[str, Any]) -> Splitting:
    """How the dataset is to be split: the fields of a study file or run, overlaid by the command line.

    Raises:
        StudyError: A field is unknown or breaks a rule.
    """
    asked = {
        "val": request.val_fraction,
        "images_per_class": request.images_per_class,
        "seed": request.split_seed,
    }
    written = {"splitting": fields.get("splitting", {})}
    merged = overlay(overlay({"splitting": DEFAULT_SPLITTING.model_dump()}, written), {"splitting": _given(asked)})
    try:
        return Splitting.model_validate(merged["splitting"])
    except ValidationError as error:
        raise StudyError(f"splitting.{explain(error, Splitting)}") from None


@dataclass(frozen=True)
class Team:
    """What a team's file says: defaults for whoever names nothing else."""

    request: Mapping[str, Any] = field(default_factory=dict)  # fields of a Request
    program: Mapping[str, Any] = field(default_factory=dict)  # of the program itself

    def fill(self, request: Request, names: Collection[str] | None = None) -> Request:
        """The request with the team's defaults where nothing was asked for; of these fields alone, if given."""
        missing = {
            name: value
            for name, value in self.request.items()
            if (names is None or name in names) and getattr(request, name) in (None, {})
        }
        return replace(request, **missing)

    def part(self, names: Collection[str]) -> "Team":
        """What it says of these options."""
        of_request, of_program = (
            {name: value for name, value in said.items() if name in names} for said in (self.request, self.program)
        )
        return Team(of_request, of_program)

    def __str__(self) -> str:
        """One line for people."""
        said = {**self.request, **self.program}
        return ", ".join(f"{name} {one_line(str(value), 100)}" for name, value in said.items())


def read_team(path: Path) -> Team:
    """The defaults in a YAML file whose keys are the options of the search, such as `gpus_per_trial: 0.5`.

    Without such a file there are none.

    Raises:
        StudyError: It cannot be read, or has a key or a type that no option has.
    """
    if not exists(path):
        return Team()
    said = parse_mapping(read_text(path, str(path), error=StudyError), str(path), error=StudyError)
    kinds = {field.name: str(field.type).partition(" ")[0] for field in fields(Request)} | PROGRAM
    kinds = {name: kind for name, kind in kinds.items() if name not in _NOT_OF_A_TEAM}
    request: dict[str, Any] = {}
    program: dict[str, Any] = {}
    for name, value in said.items():
        if name not in kinds:
            raise StudyError(f"{path}: {unknown_name('option', name, sorted(kinds))}")
        (program if name in PROGRAM else request)[name] = _typed(value, kinds[name], f"{path}: {name}")
    return Team(request, program)


def _typed(value: object, kind: str, what: str) -> object:
    """A value of a team's file as the command line would have it: numbers may stand for texts, and nothing else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "int" and is_number and isinstance(value, int):
        return value
    if kind == "float" and is_number:
        return float(value)  # type: ignore[arg-type]  # is_number says that it is one
    if kind == "str" and (isinstance(value, str) or is_number):
        return str(value)
    noun = {"int": "a whole number", "float": "a number", "str": "a text"}[kind]
    raise StudyError(f"{what}: must be {noun}, got {shown(value)}")


def parse_limits(max_latency: str | None, limits: Sequence[str]) -> dict[str, str]:
    """Limits by the name of their objective, from `--max-latency` and every `--limit NAME=VALUE`.

    Raises:
        StudyError: One has another form, or an objective has two.
    """
    found: dict[str, str] = {} if max_latency is None else {"latency": max_latency}
    for limit in limits:
        name, equals, value = limit.partition("=")
        if not (name and equals and value):
            raise StudyError(f"limit: must be NAME=VALUE, such as peak_memory=200MiB, got {shown(limit)}")
        if name in found:
            raise StudyError(f"limit: must be given once for each objective, got two for {one_line(name, 100)}")
        found[name] = value
    return found


def parse_changes(settings: Sequence[str]) -> dict[str, str]:
    """The values of fields of the recipe by their names, from every `--set recipe.FIELD=VALUE`.

    Raises:
        StudyError: One has another form, or a field has two.
    """
    found: dict[str, str] = {}
    for setting in settings:
        match = _CHANGE.fullmatch(setting)
        if match is None:
            example = "recipe.augmentation.mixup=0.2"
            raise StudyError(f"set: must be recipe.FIELD=VALUE, such as {example}, got {shown(setting)}")
        name = match[1][1:]
        if name in found:
            raise StudyError(f"set: must be given once for each field, got two for recipe.{one_line(name, 100)}")
        found[name] = match[2]
    return found


def recipe_changes(request: Request) -> dict[str, Any]:
    """The fields of the recipe that `--set` gives, within each other.

    Raises:
        StudyError: A value is no YAML, or is given by another option too.
    """
    found: dict[str, Any] = {}
    for name, text in request.changes.items():
        option = {"epochs": request.epochs, "batch_size": request.batch_size}.get(name)
        if option is not None:
            flag = name.replace("_", "-")
            raise StudyError(f"set: must not give recipe.{name} beside --{flag} {option}, got {shown(text)}")
        what = f"set recipe.{one_line(name, 100)}"
        read = parse_mapping(f"value: {text}", what, error=StudyError)
        if set(read) != {"value"}:
            raise StudyError(f"{what}: must be one value, got {shown(text)}")
        value: Any = read["value"]
        for key in reversed(name.split(".")):
            value = {key: value}
        found = overlay(found, value, "set recipe.")
    return found


def _parse_limit(name: str, text: str) -> float:
    """A limit on an objective that is measured, in its unit.

    Raises:
        UserError: There is no such objective, or the text has another form.
    """
    objective = find(name) if name in measured_names() else None
    if not isinstance(objective, MeasuredObjective):
        raise UserError(unknown_name("limit", name, measured_names()))
    return objective.parse_limit(text)


def shorten_warmup(recipe: dict[str, Any]) -> None:
    """Shorten warm-up and cool-down where few epochs were asked for, so that at least one epoch is neither."""
    left = recipe["epochs"] - 1
    for name in ("warmup_epochs", "cooldown_epochs"):
        if isinstance(recipe[name], int):  # else the study's own check says what is wrong
            recipe[name] = min(recipe[name], left)
            left = max(0, left - recipe[name])


def _given(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


def overlay(under: dict[str, Any], over: dict[str, Any], path: str = "") -> dict[str, Any]:
    """`under` with the values of `over`, mapping by mapping.

    Raises:
        StudyError: `over` has something else where `under` has a mapping.
    """
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(below, dict):
            if not isinstance(value, dict):
                raise StudyError(f"{path}{name}: must be a mapping of fields, got {shown(value)}")
            merged[name] = overlay(below, value, f"{path}{name}.")
        else:
            merged[name] = value
    return merged


def parse_count(field: str, text: str) -> int:
    """A number such as 4500000, 4.5M or 1.8G.

    Raises:
        StudyError: The text has another form.
    """
    check_type(text, str, f"{field}: must be text such as 12M", error=StudyError)
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kMG]?)", text.strip())
    count = round(min(float(match[1]), 1e18) * _FACTORS[match[2]]) if match else 0
    if count > _MOST:
        raise StudyError(f"{field}: must be at most 1000000G, which is beyond any model, got {shown(text)}")
    if count < 1:
        raise StudyError(f"{field}: must be a number above 0, such as 12M or 1.8G, got {shown(text)}")
    return count
