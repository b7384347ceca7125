"""An architecture as a value: written down, checked when it is made, the same everywhere by its digest."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from metaformer.documents import parse_mapping, read_text
from metaformer.errors import ArchitectureError, check_type, explain, shown
from metaformer.specs import LARGEST_SIDE, AnyStem, Conv, Head, Norm, Side, Spec, Stage, Stem, TokenMap, Version

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's, five times as fast, where PyYAML was built with it
# How weights are drawn: truncated normals of standard deviation 0.02 and zero biases in linear layers (poolformer), in
# learned positions too (transformer), in linear layers and convolutions (baselines), or all in PyTorch's way (pytorch).
Init = Literal["poolformer", "transformer", "baselines", "pytorch"]


class Architecture(Spec):
    """Stem, stages and head of one MetaFormer.

    `resolution` is the side of the square image, in pixels, that the model is meant for; parts whose parameters have
    the shape of a token map are tied to it. `drop_path` is the rate of the last block; it rises linearly from 0 at the
    first, or by a constant schedule is that of every block.
    """

    version: Version = 1
    resolution: Side = 224
    stem: AnyStem = Stem()
    stages: tuple[Stage, ...]
    head: Head = Head()
    drop_path: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    drop_path_schedule: Literal["linear", "constant"] = "linear"
    init: Init = "poolformer"

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if not self.stages:
            raise ValueError("stages: must hold at least one stage, got none")
        previous_width = None
        for index, stage in enumerate(self.stages):
            for mixer in stage.mixers:
                if stage.width % mixer.width_multiple:
                    raise ValueError(
                        f"stages.{index}.width: must be a multiple of {mixer.width_multiple}, for the heads of its "
                        f"attention, got {stage.width}"
                    )
            if index == 0 and stage.downsample:
                raise ValueError("stages.0.downsample: must be null, since the stem feeds the first stage")
            if index > 0 and stage.downsample is None and stage.width != previous_width:
                raise ValueError(
                    f"stages.{index}.width: must stay {previous_width} where there is no downsampling, "
                    f"got {stage.width}"
                )
            if stage.class_token and index < len(self.stages) - 1:
                raise ValueError(f"stages.{index}.class_token: must be false but in the last stage, got true")
            previous_width = stage.out_width
        if self.head.pool == "class_token" and not self.stages[-1].class_token:
            raise ValueError("head.pool: must be mean where the last stage has no class token, got class_token")
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

    @property
    def drop_paths(self) -> list[float]:
        """The rate of each block."""
        depth = self.depth
        if self.drop_path_schedule == "constant":
            return [self.drop_path] * depth
        return [self.drop_path * i / max(depth - 1, 1) for i in range(depth)]

    def sides(self, resolution: int | None = None) -> tuple[int, ...]:
        """Side of each stage's token map, in tokens, for a square image of `resolution` pixels.

        Raises:
            ArchitectureError: A stage would be smaller than one token, or a part is tied to another resolution.
        """
        if resolution is None or resolution == self.resolution:
            return _sides(self, self.resolution)
        check_type(resolution, int, "resolution: must be a whole number of pixels", error=ArchitectureError)
        if self.fixes_resolution:
            raise ArchitectureError(
                f"resolution: must be {self.resolution}, which a spatial MLP, a token MLP, a random matrix or "
                f"a position embedding of this architecture fixes, got {resolution}"
            )
        if resolution > LARGEST_SIDE:
            raise ArchitectureError(f"resolution: must be at most {LARGEST_SIDE} pixels, got {shown(resolution)}")
        try:
            _check_sides(self, resolution)
        except ValueError as error:
            raise ArchitectureError(str(error)) from None
        return _sides(self, resolution)

    def token_maps(self, resolution: int | None = None) -> tuple[TokenMap, ...]:
        """The tokens of each stage's map, for a square image of `resolution` pixels.

        Raises:
            ArchitectureError: As `sides`.
        """
        sides = self.sides(resolution)
        return tuple(TokenMap(side, stage.class_token) for stage, side in zip(self.stages, sides, strict=True))

    def model_copy(self, *, update: Mapping[str, object] | None = None, deep: bool = False) -> Self:
        """As pydantic's, without the digest, which a change makes another."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("digest", None)
        return copied

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for architectures that compute, initialise and regularise alike.

        Fields at their default value do not enter, so a later version may add fields; nor do those that do nothing.
        """
        canonical = _without_defaults(self)
        for field in self._idle_fields():
            canonical.pop(field, None)
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _idle_fields(self) -> list[str]:
        """Fields that change nothing here."""
        idle = [] if self.fixes_resolution else ["resolution"]
        if not any(self.drop_paths) or not any(stage.residual for stage in self.stages):
            idle += ["drop_path", "drop_path_schedule"]  # without a skip nothing may be dropped
        return idle

    def to_yaml(self) -> str:
        """The architecture as YAML text, every field spelled out."""
        plain = self.model_dump(mode="json")
        text: str = yaml.dump(plain, Dumper=_DUMPER, sort_keys=False, default_flow_style=None, width=120)
        return text

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """The architecture that `text` describes.

        Raises:
            ArchitectureError: The text is no YAML mapping, or a field is unknown, missing or breaks a rule.
        """
        raw = parse_mapping(text, "architecture", error=ArchitectureError)
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
        check_type(path, (str, Path), "architecture: must be a path", error=ArchitectureError)
        text = read_text(Path(path), "architecture", error=ArchitectureError)
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
    for index, (stage, side) in enumerate(zip(arch.stages, _sides(arch, resolution), strict=True)):
        if side < 1:
            raise ValueError(
                f"resolution: stage {index} would have no token left at {resolution} pixels; take more pixels"
            )
        for mixer in stage.mixers:
            if side < mixer.min_side:
                raise ValueError(
                    f"resolution: must leave stage {index} a map of side {mixer.min_side} for its {mixer.kind}, "
                    f"got {side} at {resolution} pixels"
                )


def _without_defaults(value: BaseModel) -> dict[str, object]:
    """Fields of a spec that differ from their defaults and do something; and its `kind`, but for the usual stem's."""
    if isinstance(value, Norm) and value.kind == "none":
        return {"kind": "none"}
    idle = _idle_parts(value)
    kept: dict[str, object] = {}
    for name, default, plain_default in _defaults(type(value)):
        part = getattr(value, name)
        if name in idle or (part == default and (name != "kind" or isinstance(value, Stem))):
            continue
        if name == "position_embedding" and part == "learned":
            part = True  # as it was written before there was a second kind
        plain = _plain(part)
        if plain_default is None or plain != plain_default:
            kept[name] = plain
    return kept


@cache
def _defaults(spec: type[BaseModel]) -> list[tuple[str, object, dict[str, object] | None]]:
    """The fields of a spec, with their defaults, and what these keep where they are specs themselves."""
    defaults = {name: field.default for name, field in spec.model_fields.items()}
    return [
        (name, default, _without_defaults(default) if isinstance(default, BaseModel) else None)
        for name, default in defaults.items()
    ]


def _idle_parts(value: BaseModel) -> set[str]:
    """Fields of one part that change nothing in it."""
    match value:
        case Norm(kind="affine"):
            return {"eps"}
        case Head(order_matters=False):
            return {"order"}
        case Conv():
            norms = {"pre_norm": value.pre_norm, "post_norm": value.post_norm}
            return {name for name, norm in norms.items() if norm and norm.kind == "none"}
    return set()


def _plain(part: object) -> object:
    if isinstance(part, BaseModel):
        return _without_defaults(part)
    if isinstance(part, tuple):
        return [_plain(item) for item in part]
    return part
