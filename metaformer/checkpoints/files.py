"""Weights from files and from where they were published, as a flat mapping of names to tensors; nothing is executed."""

import argparse
import os
import re
import struct
import urllib.request
import warnings
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from metaformer.errors import CheckpointError, check_type, shown

EMA_KEYS = ("state_dict_ema", "model_ema")
PLAIN_KEYS = ("state_dict", "model")
# torch's own reader lets all of these through on a damaged file or on one of another kind.
_UNREADABLE = (AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError, struct.error)
_WAIT_SECONDS = 10

_POOLFORMER = "https://github.com/sail-sg/poolformer/releases/download/v1.0/{}.pth.tar"
_BASELINES = "https://huggingface.co/sail/dl/resolve/main/{}/{}.pth"
_PVT = "https://github.com/whai362/PVT/releases/download/v2/{}.pth"
_T2T_VIT = "https://github.com/yitu-opensource/T2T-ViT/releases/download/main/{}.pth.tar"
_T2T_VIT_FILES = {
    "t2t_vit_7": "71.7_T2T_ViT_7",
    "t2t_vit_10": "75.2_T2T_ViT_10",
    "t2t_vit_12": "76.5_T2T_ViT_12",
    "t2t_vit_14": "81.5_T2T_ViT_14",
    "t2t_vit_19": "81.9_T2T_ViT_19",
    "t2t_vit_24": "82.3_T2T_ViT_24",
    "t2t_vit_t_14": "81.7_T2T_ViTt_14",
    "t2t_vit_t_19": "82.4_T2T_ViTt_19",
    "t2t_vit_t_24": "82.6_T2T_ViTt_24",
}
_HYBRIDS = ("id_s12", "pppa_s12_224", "ppaa_s12_224", "pppf_s12_224", "ppff_s12_224")
# The files of the official repositories, for models that timm has no weights of.
RELEASES: dict[str, str] = {
    **{f"metaformer_{name}": _POOLFORMER.format(f"metaformer_{name}") for name in _HYBRIDS},
    **{
        f"{family}_{size}": _BASELINES.format(family, f"{family}_{size}")
        for family in ("identityformer", "randformer")
        for size in ("s12", "s24", "s36", "m36", "m48")
    },
    **{f"pvt_{size}": _PVT.format(f"pvt_{size}") for size in ("tiny", "small", "medium", "large")},
    **{name: _T2T_VIT.format(file) for name, file in _T2T_VIT_FILES.items()},
}


def read_checkpoint(path: Path, *, use_ema: bool = True) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file by name, on the CPU, without a `module.` before all names.

    In a torch file they may lie flat or under a key that training programs use; averaged ones (EMA) come first.

    Args:
        use_ema: Take averaged weights where the file has them; otherwise the plain ones.

    Raises:
        CheckpointError: There is no such file, it is damaged, holds code, or holds no weights.
    """
    check_type(path, (str, Path), "checkpoint: must be a path", error=CheckpointError)
    path = Path(path)
    if not os.path.isfile(path):  # noqa: PTH113  pathlib raises for a path of 5,000 characters
        raise CheckpointError(f"checkpoint: must be a file, got {shown(str(path))}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    state = _weights_in(content, path, use_ema=use_ema)
    while all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


class _Dtype:
    """What a pickle says of the type of a number of numpy, such as f8; nothing of numpy's own is built from it."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or code not in _CODES:
            raise UnpicklingError(f"numpy's type {shown(code)} is none of a number")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(">" if state[1] == ">" else "<")


def _scalar(dtype: object, content: object) -> object:
    """The number of numpy that a pickle holds as bytes."""
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes) or len(content) != dtype.dtype.itemsize:
        raise UnpicklingError("a number of numpy must have its bytes")
    return np.frombuffer(content, dtype.dtype)[0]


_CODES = {np.dtype(kind).str[1:] for kind in "?bhilqBHILQefd"}
_NUMBERS_OF_NUMPY: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [  # in the place of numpy's own
    (_Dtype, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, "safetensors", error) from None


def _read_torch(path: Path) -> object:
    """What torch's reader of plain values makes of a file.

    The arguments of a training program, and numbers of numpy such as its best accuracy, may lie in it too.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace, *_NUMBERS_OF_NUMPY]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on pickles of other programs; what is wrong is raised
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise CheckpointError(
                f"checkpoint: must hold tensors and plain values, got code ({code[1].rstrip('.')}) in {str(path)!r}, "
                f"which was not run"
            ) from None
        raise _unreadable(path, "torch", error) from None
    except _UNREADABLE as error:
        raise _unreadable(path, "torch", error) from None


def _unreadable(path: Path, kind: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"checkpoint: must be a whole {kind} file, got {str(path)!r}, which is truncated or of another kind "
        f"({_first_sentence(error)})"
    )


def _first_sentence(error: Exception) -> str:
    """What went wrong, without the advice that torch gives, some of which is unsafe."""
    return re.split(r"\.\s", " ".join(str(error).split()))[0][:100] or type(error).__name__


def _weights_in(content: object, path: Path, *, use_ema: bool) -> dict[str, Tensor]:
    """The first mapping of names to tensors: the content itself, or what it holds under a known key."""
    keys = (*EMA_KEYS, *PLAIN_KEYS) if use_ema else PLAIN_KEYS
    nested = [content[key] for key in keys if key in content] if isinstance(content, Mapping) else []
    for candidate in (content, *nested):
        if isinstance(candidate, Mapping) and candidate and all(isinstance(name, str) for name in candidate):
            tensors = {name: value for name, value in candidate.items() if isinstance(value, Tensor)}
            if len(tensors) == len(candidate):
                return tensors
    held = f"the keys {', '.join(map(str, content))[:100]}" if isinstance(content, Mapping) else type(content).__name__
    raise CheckpointError(f"checkpoint: must hold tensors by name, flat or under {', '.join(keys)}, got {held}")


def fetch_weights(name: str) -> Path:
    """The file of a zoo model's published weights, from the local cache or downloaded into it.

    timm's hub comes first, then the release of the official code.

    Raises:
        CheckpointError: No place is known, or it cannot be reached.
    """
    from timm.models import get_pretrained_cfg, is_model

    config = get_pretrained_cfg(name) if is_model(name) else None
    try:
        if config and config.hf_hub_id:
            return _from_hub(config.hf_hub_id)
        if name in RELEASES:
            return _from_release(RELEASES[name])
    except (OSError, HTTPException) as error:
        raise CheckpointError(
            f"checkpoint: the weights of {name} cannot be downloaded ({_first_sentence(error)}); "
            f"go online, or give a file with checkpoint="
        ) from None
    raise CheckpointError(f"checkpoint: no place is known that has weights of {name}; give a file with checkpoint=")


def _from_hub(repository: str) -> Path:
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    file = "model.safetensors"
    try:
        return Path(hf_hub_download(repository, file, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    request = urllib.request.Request(hf_hub_url(repository, file), method="HEAD")  # noqa: S310  an https address
    with urllib.request.urlopen(request, timeout=_WAIT_SECONDS):  # noqa: S310  fails at once; the hub tries for long
        return Path(hf_hub_download(repository, file))


def _from_release(url: str) -> Path:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rpartition("/")[2]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=False)
    return path
