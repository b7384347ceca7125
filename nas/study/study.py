"""A study as it is written down: what is searched, on which data, by which recipe, for which budget."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from metaformer.documents import parse_mapping, read_text
from metaformer.errors import UserError, check_type, explain, shown
from metaformer.specs import PositiveFloat, Spec, Version
from nas.study.budget import Budget, parse_interval, parse_share, parse_until
from nas.study.database_url import without_password
from nas.study.finals import Finals
from nas.study.objectives import DEFAULT, Objectives, choose
from nas.study.prior import Prior
from nas.study.recipe import BadImages, Precision, Recipe
from nas.study.splitting import DEFAULT_SPLITTING, Splitting
from search_spaces.space import SearchSpace, SpaceSettings, get

# Far beyond what anybody has; what is larger was mistyped.
NumTrials = Annotated[int, Field(strict=True, gt=0, le=10_000_000)]
NumWorkers = Annotated[int, Field(strict=True, gt=0, le=10_000)]
NumCpus = Annotated[int, Field(strict=True, gt=0, le=1024)]
NumProcesses = Annotated[int, Field(strict=True, gt=0, le=1024)]
Seed = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
GpuShare = float | Literal["auto"]  # of one GPU; auto: as little as the measured memory allows
# When a study goes on.
MAY_CHANGE = {"budget", "max_trials", "workers", "cpus_per_trial", "gpus_per_trial", "bad_images", "checkpoint_every"}
MAY_CHANGE |= {"confirm", "until", "cpus_per_model", "gpus_per_model"}
MAY_CHANGE |= {"storage_name", "identity"}  # which are those of the run
MAY_CHANGE |= {"finals.seeds"}  # more of them may be asked for


_MAPPING = "tag:yaml.org,2002:map"
_WIDE = 10_000  # characters of a line, which nothing here has


class _OneLine(dict[str, Any]):
    """A mapping that YAML has in one line."""


class _Dumper(yaml.SafeDumper):
    """YAML's own, which knows of these."""


_Dumper.add_representer(_OneLine, lambda dumper, it: dumper.represent_mapping(_MAPPING, it, flow_style=True))


class StudyError(UserError):
    """A study that cannot be read, run or gone on with as asked; the message names field, rule and value."""


class Study(Spec):
    """All that is needed to run a search again; `study.yaml` in the run's folder."""

    version: Version = 1
    space: str
    settings: SpaceSettings
    data: str
    splitting: Splitting = DEFAULT_SPLITTING
    data_fingerprint: str
    recipe: Recipe
    objectives: tuple[str, ...] = DEFAULT
    measured_limits: dict[str, PositiveFloat] = Field(
        default_factory=dict
    )  # the most of an objective that is measured, in its unit
    references: tuple[str, ...]
    finals: Finals | None = None  # what is trained instead of a search; None: the study is a search
    sampler: str
    prior: Prior | None = None  # an earlier search that the sampler starts from
    seed: Seed
    stopper: str = "chance"
    budget: str
    confirm: str = "off"  # part of the budget for new seeds of trials whose place on the front is in doubt
    until: str = "budget"  # or converged, or the part of the hypervolume that the rest of the budget must promise
    max_trials: NumTrials | None = None
    workers: NumWorkers | None = None  # trials at a time; None: as many as the devices allow
    cpus_per_trial: NumCpus | None = None  # None: 1 on CPUs, on GPUs an equal share of the cores
    gpus_per_trial: GpuShare | None = None  # None: a whole one
    cpus_per_model: NumProcesses | None = None  # processes that train a model together, on cores; None: 1
    gpus_per_model: NumProcesses | None = None  # the same, each on a whole GPU
    storage: str | None = None  # URL of the database, or journal:PATH; None: SQLite in the run's folder
    storage_name: str | None = None  # of the study in a storage that may hold others
    identity: str | None = None  # of the run, in its database as well; None: not begun, or begun by version 0.1
    checkpoints: str | None = None  # absolute path or fsspec URI; None: in the run's folder
    bad_images: BadImages = "stop"
    checkpoint_every: str = "5m"  # a checkpoint within an epoch as often as that, or never

    @field_validator("budget")
    @classmethod
    def _check_budget(cls, text: str) -> str:
        Budget.parse(text)
        return text

    @field_validator("confirm", mode="before")
    @classmethod
    def _read_off(cls, text: object) -> object:
        return "off" if text is False else text  # YAML reads it so

    @field_validator("confirm")
    @classmethod
    def _check_share(cls, text: str) -> str:
        parse_share("confirm", text)
        return text

    @field_validator("until")
    @classmethod
    def _check_until(cls, text: str) -> str:
        parse_until(text)
        return text

    @field_validator("objectives")
    @classmethod
    def _check_objectives(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        choose(names)
        return names

    @field_validator("checkpoint_every")
    @classmethod
    def _check_interval(cls, text: str) -> str:
        parse_interval("checkpoint_every", text)
        return text

    @field_validator("gpus_per_trial", mode="before")
    @classmethod
    def _check_gpu_share(cls, share: object) -> object:
        if share is None or share == "auto":
            return share
        try:
            number = float(share) if isinstance(share, str | int | float) and not isinstance(share, bool) else 0.0
        except ValueError:
            number = 0.0
        if not 0.001 <= number <= 1:
            raise ValueError(f"must be auto, or a part of one GPU from 0.001 to 1, got {shown(share)}")
        return number

    @model_validator(mode="after")
    def _check_devices(self) -> Self:
        kind = Budget.parse(self.budget).device
        for field, number, other in (
            ("cpus_per_model", self.cpus_per_model, "gpu"),
            ("gpus_per_model", self.gpus_per_model, "cpu"),
        ):
            if number is not None and kind == other:
                raise ValueError(f"{field}: must not be given for a budget of {kind.upper()} time, got {number}")
        if self.processes > 1 and self.gpus_per_trial not in (None, 1):
            rule = "must be 1 where several GPUs train a model"
            raise ValueError(f"gpus_per_trial: {rule}, got {self.gpus_per_trial!r}")
        if self.gpus_per_trial is not None and Budget.parse(self.budget).device == "cpu":
            raise ValueError(f"gpus_per_trial: must not be given for a budget of CPU time, got {self.gpus_per_trial!r}")
        return self

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        measured = [objective.name for objective in self.goals.measured]
        for name in self.measured_limits:
            if name not in measured:
                raise ValueError(
                    f"max_{name}: must be a limit on a measured objective of the study, got {name!r}; "
                    f"add it: --objectives {','.join((*self.objectives, name))}"
                )
        return self

    @property
    def processes(self) -> int:
        """Processes that train one model together."""
        return self.cpus_per_model or self.gpus_per_model or 1

    @property
    def checkpoint_seconds(self) -> float | None:
        """Seconds between checkpoints within an epoch; None: there are none."""
        return parse_interval("checkpoint_every", self.checkpoint_every)

    @property
    def goals(self) -> Objectives:
        """The objectives as objects."""
        return choose(self.objectives)

    @field_serializer("storage")
    def _without_password(self, url: str | None) -> str | None:
        """What is written down and compared has no password; the value in memory opens the database."""
        return without_password(url) if url else url

    def make_space(self) -> SearchSpace:
        """The space, fitted to the settings."""
        return get(self.space, self.settings)

    def to_yaml(self) -> str:
        """The study as YAML text, every field spelled out; a model of an earlier search takes one line."""
        fields = self.model_dump(mode="json")
        if self.prior is not None:
            fields["prior"]["models"] = [_OneLine(model) for model in fields["prior"]["models"]]
        text: str = yaml.dump(fields, Dumper=_Dumper, sort_keys=False, width=_WIDE)
        return text

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The study written in a YAML file.

        Raises:
            StudyError: There is no such file, or a field is unknown, missing or breaks a rule.
        """
        try:
            return cls.model_validate(read_mapping(path))
        except ValidationError as error:
            raise StudyError(f"{path}: {explain(error, cls)}") from None

    def with_precision(self, precision: Precision) -> Self:
        """The same study, trained in this precision."""
        return self.model_copy(update={"recipe": self.recipe.model_copy(update={"precision": precision})})

    def check_continues(self, earlier: "Study", where: Path) -> None:
        """Check that this study goes on with `earlier`; only the fields of `MAY_CHANGE` may differ.

        Raises:
            StudyError: Another field differs; the message names the first.
        """
        here, there = Budget.parse(self.budget).device, Budget.parse(earlier.budget).device
        if here != there:
            raise StudyError(
                f"budget: must be {there.upper()} time, as the study in {where} has it, got {self.budget!r}"
            )
        for field, now, before in _differences(self.model_dump(mode="json"), earlier.model_dump(mode="json")):
            if field not in MAY_CHANGE:
                raise StudyError(
                    f"{field}: must be {shown(before)}, as the study in {where} has it, got {shown(now)}; "
                    "another --name starts another study"
                )


def read_mapping(path: Path) -> dict[str, object]:
    """The fields in the YAML file of a study.

    Raises:
        StudyError: There is no such file, or its content is no mapping.
    """
    check_type(path, (str, Path), "study: must be a path", error=StudyError)
    path = Path(path)
    return parse_mapping(read_text(path, "study", error=StudyError), f"study {path}", error=StudyError)


def _differences(now: object, before: object, path: str = "") -> list[tuple[str, object, object]]:
    """Paths at which two plain values differ, with both values."""
    if isinstance(now, dict) and isinstance(before, dict):
        found = []
        for key in now:
            found += _differences(now[key], before.get(key), f"{path}.{key}" if path else str(key))
        return found
    return [] if now == before else [(path, now, before)]
