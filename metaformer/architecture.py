"""An architecture as a value: written down, checked when it is made, the same everywhere by its digest."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, Field, PositiveInt, ValidationError, model_validator

from metaformer.errors import ArchitectureError, explain
from metaformer.specs import Head, Spec, Stage, Stem


class Architecture(Spec):
    """Stem, stages and head of one MetaFormer.

    `resolution` is the side of the square image, in pixels, that the model is meant for; parts whose parameters have
    the shape of a token map are tied to it. `drop_path` is the rate of the last block; it rises linearly from 0 at the
    first.
    """

    version: Literal[1] = 1
    resolution: PositiveInt = 224
    stem: Stem = Stem()
    stages: tuple[Stage, ...]
    head: Head = Head()
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if not self.stages:
            raise ValueError("stages: must hold at least one stage, got none")
        previous_width = None
        for index, stage in enumerate(self.stages):
            field = f"stages.{index}"
            multiple = stage.mixer.width_multiple
            if stage.width % multiple:
                raise ValueError(
                    f"{field}.width: must be a multiple of the head size {multiple} of its attention, got {stage.width}"
                )
            if index == 0 and stage.downsample:
                raise ValueError(f"{field}.downsample: must be null, since the stem feeds the first stage")
            if index > 0 and stage.downsample is None and stage.width != previous_width:
                raise ValueError(
                    f"{field}.width: must stay {previous_width} where there is no downsampling, got {stage.width}"
                )
            previous_width = stage.width
        _check_sides(self, self.resolution)
        return self

    @property
    def fixes_resolution(self) -> bool:
        """Whether the model runs at `resolution` only."""
        return any(stage.fixes_resolution for stage in self.stages)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return sum(stage.depth for stage in self.stages)

    def sides(self, resolution: int | None = None) -> tuple[int, ...]:
        """Side of each stage's token map, in tokens, for a square image of `resolution` pixels.

        Raises:
            ArchitectureError: A stage would be smaller than one token, or a part is tied to another resolution.
        """
        if resolution is None or resolution == self.resolution:
            return _sides(self, self.resolution)
        if self.fixes_resolution:
            raise ArchitectureError(
                f"resolution: must be {self.resolution}, which a spatial MLP, a random matrix or a position "
                f"embedding of this architecture fixes, got {resolution}"
            )
        try:
            _check_sides(self, resolution)
        except ValueError as error:
            raise ArchitectureError(str(error)) from None
        return _sides(self, resolution)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for architectures that compute, initialise and regularise alike.

        Fields at their default value do not enter, so a later version may add fields; neither does a resolution that
        nothing depends on.
        """
        canonical = _without_defaults(self)
        if not self.fixes_resolution:
            canonical.pop("resolution", None)
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """The architecture as YAML text, every field spelled out."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)
        return text

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """The architecture that `text` describes.

        Raises:
            ArchitectureError: The text is no YAML mapping, or a field is unknown, missing or breaks a rule.
        """
        try:
            raw = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ArchitectureError(f"architecture: must be YAML: {' '.join(str(error).split())}") from None
        if not isinstance(raw, dict):
            raise ArchitectureError(f"architecture: must be a mapping of fields, got {type(raw).__name__}")
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise ArchitectureError(explain(error, cls)) from None

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """The architecture written in the YAML file at `path`.

        Raises:
            ArchitectureError: There is no such file, or its content is not an architecture.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ArchitectureError(
                f"architecture: must be a readable YAML file, got {str(path)!r} ({error})"
            ) from None
        try:
            return cls.from_yaml(text)
        except ArchitectureError as error:
            raise ArchitectureError(f"{path}: {error}") from None


def _sides(arch: Architecture, resolution: int) -> tuple[int, ...]:
    side = arch.stem.out_side(resolution)
    sides = []
    for stage in arch.stages:
        if stage.downsample:
            side = stage.downsample.out_side(side)
        sides.append(side)
    return tuple(sides)


def _check_sides(arch: Architecture, resolution: int) -> None:
    for index, side in enumerate(_sides(arch, resolution)):
        if side < 1:
            raise ValueError(
                f"resolution: stage {index} would have no token left at {resolution} pixels; take more pixels"
            )


def _without_defaults(value: BaseModel) -> dict[str, object]:
    """Fields of a spec that differ from their defaults, and always its `kind`."""
    kept: dict[str, object] = {}
    for name, field in type(value).model_fields.items():
        part = getattr(value, name)
        if name != "kind" and part == field.default:
            continue
        kept[name] = _plain(part)
    return kept


def _plain(part: object) -> object:
    if isinstance(part, BaseModel):
        return _without_defaults(part)
    if isinstance(part, tuple):
        return [_plain(item) for item in part]
    return part
