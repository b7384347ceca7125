"""The papers' models as values, one file per family.

`published.csv` holds what the papers measured, with the source of each figure.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from metaformer.architecture import Architecture
from metaformer.documents import exists
from metaformer.errors import ArchitectureError, check_type, unknown_name
from metaformer.zoo import baselines, convmixer, images, isotropic, poolformer, pvt, t2t_vit
from metaformer.zoo.images import Preprocessing
from metaformer.zoo.poolformer import four_stages

__all__ = [
    "FAMILIES",
    "Preprocessing",
    "Published",
    "four_stages",
    "get",
    "names",
    "preprocessing",
    "published",
    "resolve",
]

FAMILIES: dict[str, dict[str, Architecture]] = {
    "PoolFormer, its hybrids and ablations": poolformer.MODELS,
    "MetaFormer Baselines": baselines.MODELS,
    "DeiT, MLP-Mixer, ResMLP": isotropic.MODELS,
    "PVT": pvt.MODELS,
    "ConvMixer": convmixer.MODELS,
    "T2T-ViT": t2t_vit.MODELS,
}
_ZOO: dict[str, Architecture] = {name: arch for family in FAMILIES.values() for name, arch in family.items()}


def names() -> list[str]:
    """Names of all models, by family and size."""
    return list(_ZOO)


def get(name: str) -> Architecture:
    """The architecture published as `name`.

    Raises:
        ArchitectureError: No model has this name.
    """
    check_type(name, str, "model: must be a name", error=ArchitectureError)
    if name not in _ZOO:
        raise ArchitectureError(unknown_name("model", name, _ZOO))
    return _ZOO[name]


def resolve(source: Architecture | str | Path) -> Architecture:
    """The architecture behind a value, a zoo name or the path of a YAML file.

    Raises:
        ArchitectureError: The name is not known, or the file is missing or not an architecture.
    """
    if isinstance(source, Architecture):
        return source
    check_type(source, (str, Path), "model: must be an architecture, a name or a path", error=ArchitectureError)
    if str(source) in _ZOO:
        return get(str(source))
    if isinstance(source, Path) or Path(source).suffix in {".yaml", ".yml"} or exists(source):
        return Architecture.from_file(source)
    raise ArchitectureError(unknown_name("model", str(source), _ZOO))


def preprocessing(source: Architecture | str | Path) -> Preprocessing:
    """How images become input: of a zoo name as published, of another architecture the defaults at its resolution.

    Raises:
        ArchitectureError: As `resolve`.
    """
    arch = resolve(source)
    known = None if isinstance(source, Architecture) else images.PUBLISHED.get(str(source))
    return known or Preprocessing(resolution=arch.resolution)


@dataclass(frozen=True)
class Published:
    """One row of `published.csv`: what a paper reports of a model on ImageNet-1k; None where it reports nothing."""

    model: str  # as the paper calls it
    top1: float | None  # validation accuracy, percent
    params_M: float | None  # millions, as printed, without frozen ones
    macs_G: float | None  # billions at `resolution`, as printed
    params_exact: str  # counted from the official code; a text, since some rows name alternatives
    resolution: int
    source: str
    evidence: str


@cache
def published() -> dict[str, Published]:
    """What the papers measured, for the models of this zoo."""
    text = files("metaformer.zoo").joinpath("published.csv").read_text(encoding="utf-8")
    return {row["name"]: _published(row) for row in csv.DictReader(text.splitlines()) if row["name"]}


def _published(row: dict[str, str]) -> Published:
    return Published(
        model=row["model"],
        top1=_number(row["top1"]),
        params_M=_number(row["params_M"].partition("+")[0]),  # "11.9+0.2 frozen"
        macs_G=_number(row["macs_G"]),
        params_exact=row["params_exact"],
        resolution=int(row["resolution"]),
        source=row["source"],
        evidence=row["evidence"],
    )


def _number(text: str) -> float | None:
    return float(text) if text else None
