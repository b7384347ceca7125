"""Checkpoints of others and of our own: their tensors to ours and back, strictly, and a model with its weights.

B batch, C channels, H height, W width, N tokens.
"""

from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import NamedTuple

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.checkpoints.files import fetch_weights, read_checkpoint
from metaformer.checkpoints.names import Convention, Place, Shape, conventions, places, resampling
from metaformer.errors import CheckpointError, check_type, shown
from metaformer.network.model import MetaFormer, build
from metaformer.specs.parts import TokensToToken

State = Mapping[str, Tensor]
_SHOWN = 5


def load(
    source: Architecture | str | Path,
    checkpoint: str | Path | None = None,
    *,
    resample_positions: bool = False,
    use_ema: bool = True,
) -> MetaFormer:
    """The model of an architecture, a zoo name or a YAML file, with the weights of a checkpoint.

    The checkpoint may have our names, the official ones or timm's. It must fit to the last tensor.

    Args:
        checkpoint: A safetensors or torch file; without one the published weights are downloaded.
        resample_positions: Fit position embeddings of another resolution, as the official code of the family does it.
        use_ema: Take averaged weights where the file has them too; otherwise the plain ones.

    Raises:
        ArchitectureError: As `build`.
        CheckpointError: There are no such weights, or they do not fit.
    """
    arch = zoo.resolve(source)
    _check_flags(resample_positions=resample_positions, use_ema=use_ema)
    if checkpoint is not None:
        check_type(checkpoint, (str, Path), "checkpoint: must be a path", error=CheckpointError)
    path = fetch_weights(_published_name(arch, source)) if checkpoint is None else Path(checkpoint)
    state = read_checkpoint(path, use_ema=use_ema)
    try:
        fitting = to_ours(state, arch, resample_positions=resample_positions)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    model = build(arch)
    model.load_state_dict(fitting)
    return model


def _published_name(arch: Architecture, source: object) -> str:
    names = [name for name in zoo.names() if zoo.get(name) == arch]
    if not names:
        raise CheckpointError("checkpoint: must be given for an architecture that is not one of the zoo, got none")
    return str(source) if source in names else names[0]


def to_ours(state: State, arch: Architecture, *, resample_positions: bool = False) -> dict[str, Tensor]:
    """The tensors of a checkpoint under our names and in our shapes; whose names it has is told from them.

    Args:
        resample_positions: Fit position embeddings of another resolution, as the official code of the family does it.

    Raises:
        CheckpointError: The names are nobody's, or tensors are missing, too many or of another shape.
    """
    _check_state(state, arch)
    _check_flags(resample_positions=resample_positions)
    own = _own_tensors(arch)
    shapes = {path: tuple(tensor.shape) for path, tensor in own.items()}
    convention, expected = _recognise(state, arch, shapes)
    _check_values({name: (state[name], own[place.path]) for name, place in expected.items() if name in state})
    if resample_positions:
        state = _with_positions(state, arch, expected)
    _check(state, arch, convention, expected)
    parts: dict[str, list[tuple[Place, Tensor]]] = {path: [] for path in shapes}
    for name, place in expected.items():
        parts[place.path].append((place, state[name]))
    return {path: _join(found, shapes[path]) for path, found in parts.items()}


def from_ours(state: State, arch: Architecture, convention: Convention) -> dict[str, Tensor]:
    """The tensors of a model of ours under the official names or timm's, in their shapes, as copies.

    timm's PoolFormer computes another head from the same weights: it pools before a norm of another kind.

    Raises:
        CheckpointError: The architecture has no such names, or the tensors are not those of its model.
    """
    _check_state(state, arch)
    known = conventions(arch)
    if convention not in known:
        raise CheckpointError(
            f"convention: must be one of {', '.join(known)}, the only names of this architecture, got {convention!r}"
        )
    shapes = _own_shapes(arch)
    _check(state, arch, "ours", places(arch, "ours", shapes))
    return {name: _take(state[place.path], place) for name, place in places(arch, convention, shapes).items()}


def _check_state(state: object, arch: object) -> None:
    check_type(arch, Architecture, "arch: must be an architecture", error=CheckpointError)
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"state: must be a mapping of names to tensors, got {shown(state)}")


def _check_flags(**flags: object) -> None:
    for name, flag in flags.items():
        check_type(flag, bool, f"{name}: must be yes or no", error=CheckpointError)


def _own_tensors(arch: Architecture) -> dict[str, Tensor]:
    """Our tensors, without their values."""
    with torch.device("meta"):
        return MetaFormer(arch).state_dict()


def _own_shapes(arch: Architecture) -> dict[str, Shape]:
    return {path: tuple(tensor.shape) for path, tensor in _own_tensors(arch).items()}


def _check_values(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Check, by name, tensors of a checkpoint that go in the place of ours; a count of batches may be of any type.

    Raises:
        CheckpointError: One is of another kind, or holds what is no number.
    """
    others = [
        f"{name} is {str(tensor.dtype).removeprefix('torch.')}{'' if _is_dense(tensor) else ', not dense'}"
        for name, (tensor, ours) in pairs.items()
        if tensor.is_floating_point() < ours.is_floating_point() or tensor.is_complex() or not _is_dense(tensor)
    ]
    if others:
        raise CheckpointError(
            "checkpoint: must have floating-point numbers where this architecture has them, "
            f"got {len(others)} of another type: {_some(others)}"
        )
    not_finite = [name for name, (tensor, _) in pairs.items() if not _is_finite(tensor)]
    if not_finite:
        raise CheckpointError(
            f"checkpoint: must have finite weights, got NaN or infinity in {len(not_finite)}: {_some(not_finite)}"
        )


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_quantized


def _is_finite(tensor: Tensor) -> bool:
    """Whether every number is one; of a tensor without values nothing is known against it."""
    if tensor.is_meta or not tensor.is_floating_point():
        return True
    in_full = tensor if tensor.element_size() > 1 else tensor.float()  # torch looks at no 8 bits
    return bool(torch.isfinite(in_full).all())


def _recognise(state: State, arch: Architecture, shapes: Mapping[str, Shape]) -> tuple[Convention, dict[str, Place]]:
    """The naming convention that fits most tensors, with the place of each name; it must fit half of either side."""
    known = {convention: places(arch, convention, shapes) for convention in conventions(arch)}
    num_common = {convention: len(state.keys() & names.keys()) for convention, names in known.items()}
    best = max(known, key=lambda convention: num_common[convention])
    if 2 * num_common[best] < min(len(state), len(known[best])):
        raise CheckpointError(
            f"checkpoint: must have the names of this architecture ({_or(known)}), got {_some(state)}: "
            f"is it of another model?"
        )
    for other, names in known.items():
        if num_common[other] == num_common[best] and names.keys() != known[best].keys():
            raise CheckpointError(f"checkpoint: must have names of one kind, got {_some(state)}: {best} or {other}?")
    return best, known[best]


def _or(known: Mapping[Convention, object]) -> str:
    return " or ".join(known) if len(known) > 1 else "only ours, since neither the papers' code nor timm builds it"


def _some(names: Mapping[str, object] | list[str]) -> str:
    shown = list(names)[:_SHOWN]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more


def _join(found: list[tuple[Place, Tensor]], shape: Shape) -> Tensor:
    """One tensor of ours from its parts, which come in the order of its rows."""
    tensors = [tensor.mT if place.layout == "tokens" else tensor for place, tensor in found]
    return (torch.cat(tensors) if len(tensors) > 1 else tensors[0]).reshape(shape)


def _take(tensor: Tensor, place: Place) -> Tensor:
    """What another's checkpoint holds of a tensor of ours."""
    start, stop = place.thirds
    if (start, stop) != (0, 3):
        third = len(tensor) // 3
        tensor = tensor[start * third : stop * third]
    if place.layout == "tokens":
        tensor = tensor.flatten(2).mT
    return tensor.detach().reshape(place.shape).clone(memory_format=torch.contiguous_format)


def _with_positions(state: State, arch: Architecture, expected: Mapping[str, Place]) -> dict[str, Tensor]:
    """The state with each position embedding that differs in its number of tokens alone resampled."""
    resampled = {
        name: _resample(state[name], name, place, arch)
        for name, place in expected.items()
        if name in state and _is_other_resolution(state[name].shape, place)
    }
    return {**state, **resampled}


def _is_other_resolution(shape: Shape, place: Place) -> bool:
    """Whether this is a position embedding of the same width for another map."""
    axis = 2 if place.layout == "tokens" else 1
    return (
        place.path.endswith("position.pos_embed")
        and shape != place.shape
        and (len(shape), *shape[:1], *shape[axis : axis + 1]) == (len(place.shape), place.shape[0], place.shape[axis])
    )


def _resample(tensor: Tensor, name: str, place: Place, arch: Architecture) -> Tensor:
    tokens = arch.token_maps()[_stage_of(place.path)]
    table_BNC = tensor if place.layout == "tokens" else tensor.flatten(2).mT
    num_in_map = table_BNC.shape[1] - tokens.class_token
    if isqrt(num_in_map) ** 2 != num_in_map:
        raise CheckpointError(f"checkpoint: {name} must be for a square map to be resampled, got {num_in_map} tokens")
    sides = [tokens.side, tokens.side]
    how = resampling(arch)
    fitted_BNC: Tensor = resample_abs_pos_embed(
        table_BNC,
        sides,
        num_prefix_tokens=int(tokens.class_token),
        interpolation=how.rpartition(" ")[2],
        antialias=how.startswith("antialiased"),
    )
    return fitted_BNC if place.layout == "tokens" else fitted_BNC.mT.reshape(place.shape)


def _stage_of(path: str) -> int:
    return int(path.split(".")[1])


class _Misfit(NamedTuple):
    name: str
    got: Shape
    place: Place

    def __str__(self) -> str:
        return f"{self.name} is {self.got}, not {self.place.shape}"


def _check(state: State, arch: Architecture, convention: Convention, expected: Mapping[str, Place]) -> None:
    """All tensors are there, none is too many, all have their shapes.

    Raises:
        CheckpointError: It is not so; the message lists the tensors, and says why where that can be told.
    """
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected]
    misfits = [
        _Misfit(name, tuple(state[name].shape), place)
        for name, place in expected.items()
        if name in state and tuple(state[name].shape) != place.shape
    ]
    found = {"missing": missing, "too many": extra, "of another shape": [str(misfit) for misfit in misfits]}
    if not any(found.values()):
        return
    text = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in found.items() if names)
    reasons = dict.fromkeys(reason for misfit in misfits if (reason := _reason(misfit, arch)))
    raise CheckpointError(
        f"checkpoint: must have just the tensors of this architecture, here by {_WHOSE[convention]} names, got {text}"
        + "".join(f"; {reason}" for reason in reasons)
    )


_WHOSE: dict[Convention, str] = {"ours": "our", "official": "the official", "timm": "timm's"}


def _reason(misfit: _Misfit, arch: Architecture) -> str | None:
    """Why a tensor has another shape, where one number of the architecture explains it."""
    if misfit.place.path.startswith("stages.0.embed."):
        return _stem_reason(misfit, arch)
    if misfit.place.path.startswith("head.fc.") and misfit.got[1:] == misfit.place.shape[1:]:
        return f"num_classes: the checkpoint has {misfit.got[0]}, the architecture {arch.head.num_classes}"
    if _is_other_resolution(misfit.got, misfit.place):
        return (
            f"the position embedding is of another resolution than {arch.resolution}; resample_positions=True "
            f"would resample it"
        )
    if ".mixer.part." in misfit.place.path:
        return _mixer_reason(misfit, arch)
    return None


def _stem_reason(misfit: _Misfit, arch: Architecture) -> str | None:
    expected = misfit.place.shape
    if len(expected) == len(misfit.got) == 4 and expected[:1] + expected[2:] == misfit.got[:1] + misfit.got[2:]:
        channels = misfit.got[1]
    elif isinstance(arch.stem, TokensToToken) and misfit.place.path.endswith("layers.0.norm1.weight"):
        channels = misfit.got[0] // arch.stem.splits[0].kernel ** 2
    else:
        return None
    return f"in_channels: the checkpoint has {channels}, the architecture {arch.stem.in_channels}"


def _mixer_reason(misfit: _Misfit, arch: Architecture) -> str | None:
    index = _stage_of(misfit.place.path)
    mixers, num_tokens = arch.stages[index].mixers, arch.token_maps()[index].num_tokens
    mixer = next((mixer for mixer in mixers if mixer.fixes_resolution), mixers[0])
    differing = {pair for pair in zip(misfit.place.shape, misfit.got, strict=False) if pair[0] != pair[1]}
    if not mixer.fixes_resolution or len(differing) != 1 or differing.pop()[0] != num_tokens:
        return None
    return (
        f"the {mixer.kind} of stage {index} is for another number of tokens than {num_tokens} and cannot be "
        f"resampled; it fixes the resolution"
    )
