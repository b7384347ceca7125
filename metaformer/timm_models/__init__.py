"""The models as timm's: importing this file registers each of the zoo with timm, under its name behind `mf_`.

`timm.create_model("mf_metaformer_ppaa_s12_224")` opens one, `timm.create_model("mf_from_file", architecture="a.yaml")`
one of your own; `timm.list_models("mf_*")` lists them. `timm.create_model("local-dir:FOLDER", pretrained=True)` opens
what `python -m nas.export --format timm` has written, by way of `mf_exported`. No name of timm's own changes its
meaning.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from pydantic import ConfigDict, NonNegativeInt, PositiveInt, ValidationError
from timm.models import PretrainedCfg, adapt_input_conv, build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.checkpoints import load
from metaformer.documents import is_folder, sha256_of
from metaformer.errors import ArchitectureError, CheckpointError, UserError, check_type, explain, shown
from metaformer.specs.parts import Dropout, Spec, TokensToToken
from metaformer.timm_models.network import GlobalPool, TimmMetaFormer, counts_blocks

PREFIX = "mf_"
CLASSIFIER = "head.fc"
EXPORTED_WEIGHTS = "model.safetensors"
_PLACES = ("file", "url", "hf_hub_id", "state_dict")  # where timm looks for weights


class _Arguments(Spec):
    """What `timm.create_model` takes for these models, in timm's words; None: as the architecture has it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    pretrained: bool = False
    pretrained_cfg: Any = None  # these are timm's affair
    pretrained_cfg_overlay: dict[str, Any] | None = None
    pretrained_model_args: dict[str, Any] | None = None
    cache_dir: None = None
    num_classes: NonNegativeInt | None = None
    in_chans: PositiveInt | None = None
    img_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    drop_rate: Dropout | None = None  # before the classifier
    drop_path_rate: Dropout | None = None  # of the last block
    global_pool: GlobalPool | None = None
    features_only: bool = False
    feature_norms: bool = False  # with features_only: a fresh norm behind each stage, as for dense prediction
    out_indices: int | tuple[int, ...] | None = None


def _checked(arguments: Mapping[str, object]) -> _Arguments:
    try:
        return _Arguments.model_validate(arguments)
    except ValidationError as error:
        raise ArchitectureError(explain(error, _Arguments)) from None


def _create(
    name: str,
    source: str | Architecture,
    arguments: _Arguments,
    *,
    pretrained_cfg: Any = None,
    checkpoint: str | Path | None = None,
) -> nn.Module:
    """A model or, with `features_only`, timm's wrapper that gives a list of maps."""
    arch, given = zoo.resolve(source), arguments.model_dump(exclude_none=True)
    if arguments.feature_norms and not arguments.features_only:
        raise ArchitectureError("feature_norms: must be given with features_only, got it alone")
    weights = partial(_weights, source, checkpoint or _file(arguments)) if arguments.pretrained else None
    for ours in ("pretrained", "pretrained_cfg"):
        given.pop(ours, None)
    last = min(3, arch.depth) if counts_blocks(arch) else len(arch.stages)
    return build_model_with_cfg(
        partial(_make, arch, weights=weights),
        name,
        pretrained=False,  # our own loader has read the weights by then
        pretrained_cfg=arguments.pretrained_cfg or pretrained_cfg,
        feature_cfg={"feature_cls": "getter", "out_indices": last},
        **given,
    )


def _make(
    arch: Architecture,
    *,
    weights: Callable[[], dict[str, Tensor]] | None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    global_pool: str | None = None,
    feature_norms: bool = False,
) -> TimmMetaFormer:
    adapted = _adapt(arch, in_chans=in_chans, img_size=img_size, dropout=drop_rate, drop_path=drop_path_rate)
    model = TimmMetaFormer(adapted, num_classes=num_classes, global_pool=global_pool, feature_norms=feature_norms)
    if weights:
        _check_pretrained(arch, adapted)
        _fill(model, weights(), arch)
    return model.to(memory_format=torch.channels_last)


def _adapt(
    arch: Architecture,
    *,
    in_chans: int | None,
    img_size: int | tuple[int, int] | None,
    dropout: float | None,
    drop_path: float | None,
) -> Architecture:
    """The architecture with what was asked for in the place of its own."""
    raw = arch.model_dump()
    if in_chans is not None:
        raw["stem"]["in_channels"] = in_chans
    if img_size is not None:
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height != width:
            raise ArchitectureError(f"img_size: must be square, got {(height, width)}")
        raw["resolution"] = height
    if dropout is not None:
        raw["head"]["dropout"] = dropout
    if drop_path is not None:
        raw["drop_path"] = drop_path
    try:
        return Architecture.model_validate(raw)
    except ValidationError as error:
        raise ArchitectureError(explain(error, Architecture)) from None


def _file(arguments: _Arguments) -> str | None:
    """The file that timm's configuration names as the place of the weights."""
    found: dict[str, Any] = {}
    for given in (arguments.pretrained_cfg, arguments.pretrained_cfg_overlay):
        fields = vars(given) if isinstance(given, PretrainedCfg) else given
        if isinstance(fields, dict):
            found |= {key: fields[key] for key in _PLACES if fields.get(key)}
    for place in found:
        if place != "file":
            raise ArchitectureError(f"pretrained_cfg: must name a file as the place of the weights, got {place}")
    return found.get("file")


def _weights(source: str | Architecture, checkpoint: str | Path | None) -> dict[str, Tensor]:
    """The published weights of a zoo name, or those in a file."""
    return load(source, checkpoint).state_dict()


def _check_pretrained(published: Architecture, adapted: Architecture) -> None:
    if published.fixes_resolution and adapted.resolution != published.resolution:
        raise ArchitectureError(
            f"img_size: must be {published.resolution}, which the weights fix, with pretrained, "
            f"got {adapted.resolution}"
        )
    if _first_conv(published) is None and adapted.stem.in_channels != published.stem.in_channels:
        raise ArchitectureError(
            f"in_chans: must be {published.stem.in_channels} with pretrained, since this stem begins with no "
            f"convolution, got {adapted.stem.in_channels}"
        )


def _fill(model: TimmMetaFormer, state: dict[str, Tensor], published: Architecture) -> None:
    """Load weights; a classifier of other classes keeps its own, other channels of the image get timm's adaptation."""
    own, conv = model.state_dict(), f"{_first_conv(published)}.weight"
    if model.num_classes == 0:
        state = {name: value for name, value in state.items() if name in own or not name.startswith("head.")}
    elif model.num_classes != published.head.num_classes:
        state |= {name: value for name, value in own.items() if name.startswith(f"{CLASSIFIER}.")}
    if model.in_chans != published.stem.in_channels:
        state[conv] = adapt_input_conv(model.in_chans, state[conv], published.stem.in_channels)
    state |= {name: value for name, value in own.items() if name.startswith("feature_norms.")}
    model.load_state_dict(state)


def _first_conv(arch: Architecture) -> str | None:
    """The module that sees the image; None where it is no convolution."""
    if isinstance(arch.stem, TokensToToken):
        return None
    is_bare = not (arch.stem.pre_norm or arch.stem.activation or arch.stem.post_norm)
    return "stages.0.embed" if is_bare else "stages.0.embed.conv"


def timm_configuration(arch: Architecture, preprocessing: zoo.Preprocessing) -> dict[str, object]:
    """What timm calls pretrained_cfg: how the model was evaluated, and where its first and last layers are."""
    side = preprocessing.resolution
    return {
        "input_size": (arch.stem.in_channels, side, side),
        "fixed_input_size": arch.fixes_resolution,
        "num_classes": arch.head.num_classes,
        "first_conv": _first_conv(arch),
        "classifier": CLASSIFIER,
        **preprocessing.model_dump(exclude={"resolution"}),
    }


def mf_from_file(*, architecture: str | Path | Architecture | None = None, **arguments: object) -> nn.Module:
    """A model of an architecture, of a YAML file or of a zoo name, with the arguments of the others.

    Raises:
        ArchitectureError: The file is missing or no architecture, or an argument is unknown or breaks a rule.
    """
    if architecture is None:
        raise ArchitectureError("architecture: must be given, as a file, a value or a name, got none")
    arch = zoo.resolve(architecture)
    configuration = timm_configuration(arch, zoo.preprocessing(architecture))
    return _create("mf_from_file", arch, _checked(arguments), pretrained_cfg=configuration)


def mf_exported(
    *,
    architecture: Mapping[str, object] | None = None,
    digest: str | None = None,
    weights_sha256: str | None = None,
    **arguments: object,
) -> nn.Module:
    """A model from a folder that `python -m nas.export --format timm` has written.

    timm calls it with what `config.json` has as `model_args`. With `pretrained` the weights are those of the folder.

    Args:
        architecture: As a mapping of fields.
        digest: Of that architecture.
        weights_sha256: Of the folder's file of weights.
    Raises:
        ArchitectureError: A field is unknown or breaks a rule, or the digest is another one.
        CheckpointError: The file of weights is missing or not as it was written.
    """
    check_type(architecture, dict, "architecture: must be a mapping of fields", error=ArchitectureError)
    try:
        arch = Architecture.model_validate(architecture)
    except ValidationError as error:
        raise ArchitectureError(explain(error, Architecture)) from None
    if arch.digest != digest:
        raise ArchitectureError(
            f"architecture: must have the digest {shown(digest)} that was written with it, got {arch.digest}"
        )
    checked = _checked(arguments)
    place = _file(checked) if checked.pretrained else None
    checkpoint = _whole(Path(place) / EXPORTED_WEIGHTS, weights_sha256) if place and is_folder(place) else None
    configuration = timm_configuration(arch, zoo.preprocessing(arch))
    return _create("mf_exported", arch, checked, pretrained_cfg=configuration, checkpoint=checkpoint)


def _whole(path: Path, sha256: str | None) -> Path:
    """The path of a file of weights that is as it was written."""
    try:
        found = sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"checkpoint: must be a file, got {shown(str(path))} ({error.strerror})") from None
    if found != sha256:
        raise CheckpointError(f"checkpoint: must be as it was written, got {shown(str(path))} changed or truncated")
    return path


def _entry(name: str) -> Callable[..., nn.Module]:
    """What timm calls for a name of the zoo."""

    def create(**arguments: object) -> nn.Module:
        return _create(PREFIX + name, name, _checked(arguments))

    create.__name__ = create.__qualname__ = PREFIX + name
    create.__doc__ = f"The zoo's {name}."
    return create


def _register(entry: Callable[..., nn.Module]) -> None:
    name = entry.__name__
    if timm.is_model(name) and timm.model_entrypoint(name).__module__ != __name__:
        raise UserError(f"timm: must have no model of its own called {name}, whose place ours would take")
    register_model(entry)


__all__ = ["TimmMetaFormer", "mf_exported", "mf_from_file"]  # timm adds the names it registers
default_cfgs = generate_default_cfgs(  # where timm looks for them
    {PREFIX + name: timm_configuration(zoo.get(name), zoo.preprocessing(name)) for name in zoo.names()}
)
for _name in zoo.names():
    globals()[PREFIX + _name] = _entry(_name)  # since timm puts it into __all__
    _register(globals()[PREFIX + _name])
_register(mf_from_file)
_register(mf_exported)
