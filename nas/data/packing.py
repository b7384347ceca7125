"""Decode a dataset once: arrays of bytes for `prepared:PATH`, and what a person should know of the images.

Work goes on in PATH.part, chunk by chunk, and can be stopped and gone on with at any moment; PATH appears whole.

C channels, N images of a split, S side of a stored image in pixels.
"""

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from metaformer.images import ImageError
from metaformer.processes import belong_to_program
from nas.data.prepared import (
    DOCUMENT,
    UNREADABLE,
    VERSION,
    Channels,
    Description,
    images_file,
    labels_file,
)
from nas.data.registry import DataError, Split, fingerprint_of, wrong
from nas.data.sources import IMAGENET_MEAN, IMAGENET_STD, Source
from nas.study.recipe import BadImages

SPLITS: tuple[Split, ...] = get_args(Split)
FINDINGS = "findings.json"
_CHUNK = 512  # images
_CROP_PART = 0.875  # resolution over stored side, the usual "crop pct" of photographs
_LARGEST_TILED = 1.25  # times the resolution: images of one square size up to this are stored as they are
_THUMB = 16  # pixels a side of the grey images in which likenesses are looked for
_ALIKE = 0.96  # correlation of two such images above which they look the same
_FEW_LEVELS = 20.0  # and their largest mean difference, of 255 grey levels
_MOST_PAIRS = 1000  # of duplicates that are listed
_WORDNET = 1000  # classes of ImageNet-1K, whose names are n and eight digits


class Duplicate(BaseModel):
    """An image outside train that train has too."""

    image: str
    of: str  # in train
    exact: bool  # the same bytes once stored


class Findings(BaseModel):
    """What was found of the images while they were decoded."""

    model_config = ConfigDict(frozen=True)

    class_sizes: Mapping[str, int]  # of the training images
    modes: Mapping[str, int]  # Pillow's, and how many images have it
    shorter_side: tuple[int, int, int]  # smallest, median, largest, in pixels
    num_enlarged: int  # images whose shorter side was below the stored one
    num_unreadable: int
    num_duplicates: Mapping[str, Mapping[str, int]]  # of val and test with train: exact and near
    duplicates: tuple[Duplicate, ...]  # at most 1,000
    num_bytes: int


class _Job(BaseModel):
    """What makes two runs of the program the same; they go on with each other's work."""

    model_config = ConfigDict(frozen=True)

    version: int
    source: str
    source_fingerprint: str
    resolution: int
    side: int
    bad_images: BadImages


class _Chunk(BaseModel):
    """What is noted of the images `start` to `end` of a split."""

    model_config = ConfigDict(frozen=True)

    split: Split
    start: int
    end: int
    digest: str = ""
    sums: tuple[int, ...] = ()  # of each channel's levels, 0 to 255, and of their squares
    square_sums: tuple[int, ...] = ()
    unreadable: tuple[int, ...] = ()  # places in the split
    modes: Mapping[str, int] = {}
    shorter_sides: tuple[int, ...] = ()


def pack(
    source: Source,
    out: Path,
    *,
    resolution: int,
    side: int,
    num_workers: int,
    bad_images: BadImages,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Description, Findings]:
    """Decode every image of a source into `out`; what an earlier call of the same job has done is kept.

    Args:
        side: Of the stored squares in pixels; see `choose_side`.
        num_workers: Processes that decode, 1 or more.
        bad_images: `stop` raises for an image that cannot be read, `skip` leaves it out.
        progress: Is told how many images are done more.
    Raises:
        DataError: `out` exists, another job or process is at work there, an image cannot be read, or the disk is full.
    """
    job = _Job(
        version=VERSION,
        source=source.name,
        source_fingerprint=source.fingerprint,
        resolution=resolution,
        side=side,
        bad_images=bad_images,
    )
    if os.path.lexists(out):
        raise wrong("out", "must not exist", str(out))
    part = out.with_name(f"{out.name}.part")
    with _disk_named(part):
        part.mkdir(parents=True, exist_ok=True)
        with _alone(part):
            _begin(part, job, source)
            chunks = _decode(part, source, job, num_workers, progress)
            description, findings = _describe(part, source, job, chunks)
            _note(part, description, findings)
            part.rename(out)
            _clear(out)
    return description, findings


def read_findings(root: Path) -> Findings:
    """What was found of the images of a prepared folder."""
    return Findings.model_validate_json((root / FINDINGS).read_text(encoding="utf-8"))


def choose_side(source: Source, resolution: int) -> int:
    """The side to store, in pixels: that of the images where all of a sample are equal squares of about the resolution.

    Otherwise 8/7 of the resolution, so that evaluation can cut the middle out, as is usual for photographs.
    """
    sizes = {header[:2] for header in source.sample() if not isinstance(header, ImageError)}
    if len(sizes) == 1:
        [(width, height)] = sizes
        if width == height and resolution <= width <= _LARGEST_TILED * resolution:
            return width
    return math.ceil(resolution / _CROP_PART)


@contextmanager
def _disk_named(part: Path) -> Iterator[None]:
    """Problems of the disk in one line; what is done stays and is gone on with."""
    try:
        yield
    except OSError as error:
        rule = f"must be on a disk that takes it ({error.strerror or error}); what is done is kept"
        raise wrong("out", rule, str(part)) from None


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Only one process works in a folder; the lock goes with the process, however it ends."""
    with (part / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise wrong("out", "must not be at work in another process", str(part)) from None
        yield


def _begin(part: Path, job: _Job, source: Source) -> None:
    """The arrays at their full size, so that a disk that is too small says so before work begins."""
    noted = part / "job.json"
    if noted.exists():
        try:
            earlier = _Job.model_validate_json(noted.read_text(encoding="utf-8"))
        except ValidationError:
            raise wrong("out", "must hold no damaged job; remove it to begin again", str(part)) from None
        for name, now in job:
            if getattr(earlier, name) != now:
                rule = f"{str(part)!r} was begun with {name} {getattr(earlier, name)}; remove it, or say the same"
                raise wrong("out", rule, now)
        for path, dtype, shape in _arrays(part, job, source):
            _check_whole(path, dtype, shape)
        return
    (part / "chunks").mkdir(exist_ok=True)
    for path, dtype, shape in _arrays(part, job, source):
        _allocate(path, dtype, shape)
    _write(noted, job.model_dump_json())


def _arrays(part: Path, job: _Job, source: Source) -> Iterator[tuple[Path, type[np.generic], tuple[int, ...]]]:
    """File, type and shape of each array."""
    for split in SPLITS:
        num_images = len(source.labels[split])
        yield images_file(part, split), np.uint8, (num_images, job.side, job.side, 3)
        yield _thumbs_file(part, split), np.uint8, (num_images, _THUMB, _THUMB)
        yield _digests_file(part, split), np.uint64, (num_images,)


def _check_whole(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Raises DataError for an array that was cut short, which numpy would make longer when it opens it for writing."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        is_whole = array.dtype == dtype and array.shape == shape
    except (OSError, ValueError, EOFError):
        is_whole = False
    if not is_whole:
        raise wrong("out", "must hold whole arrays; remove it to begin again", str(path))


def _allocate(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """An array in a file whose blocks are there, since a full disk kills a process that writes to a mapped file."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    del array
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _thumbs_file(part: Path, split: Split) -> Path:
    return part / f"{split}_thumbs.npy"


def _digests_file(part: Path, split: Split) -> Path:
    return part / f"{split}_digests.npy"


def _write(path: Path, text: str) -> None:
    """A file that is there whole or not at all."""
    fresh = path.with_name(f".{path.name}.fresh")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _decode(part: Path, source: Source, job: _Job, num_workers: int, progress: Callable[[int], None]) -> list[_Chunk]:
    """All chunks; those that an earlier run noted are not decoded again."""
    done, open_ = [], []
    for split in SPLITS:
        num_images = len(source.labels[split])
        for start in range(0, num_images, _CHUNK):
            chunk = _Chunk(split=split, start=start, end=min(start + _CHUNK, num_images))
            try:
                done.append(_Chunk.model_validate_json(_chunk_file(part, chunk).read_text(encoding="utf-8")))
            except (FileNotFoundError, ValidationError):
                open_.append(chunk)
    progress(sum(chunk.end - chunk.start for chunk in done))
    if open_:
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__])  # torch is loaded once, and not by each process
        with ProcessPoolExecutor(num_workers, context, _begin_worker, (source, part, job)) as pool:
            futures = [pool.submit(_decode_chunk, chunk) for chunk in open_]
            try:
                for future in as_completed(futures):
                    chunk = future.result()
                    done.append(chunk)
                    progress(chunk.end - chunk.start)
            except BrokenProcessPool:
                raise DataError("prepare: a process that decodes was killed; the same command goes on") from None
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    return sorted(done, key=lambda chunk: (SPLITS.index(chunk.split), chunk.start))


def _chunk_file(part: Path, chunk: _Chunk) -> Path:
    return part / "chunks" / f"{chunk.split}_{chunk.start}.json"


_work: tuple[Source, Path, _Job]  # of this process, which decodes


def _begin_worker(source: Source, part: Path, job: _Job) -> None:
    global _work  # noqa: PLW0603  a pool gives its processes no other place
    _work = source, part, job
    belong_to_program()


def _decode_chunk(chunk: _Chunk) -> _Chunk:
    """Decode, store, and only then note a chunk.

    Raises:
        DataError: An image cannot be read, and is not to be left out.
    """
    source, part, job = _work
    images_NSSC, thumbs_NTT, digests_N = (
        np.load(file(part, chunk.split), mmap_mode="r+") for file in (images_file, _thumbs_file, _digests_file)
    )
    unreadable, modes, sides = [], Counter[str](), []
    for place in range(chunk.start, chunk.end):
        try:
            header = source.read_header(chunk.split, place)
            image = _square(source.read(chunk.split, place), job.side)
        except ImageError as error:
            if job.bad_images == "stop":
                raise DataError(str(error)) from None
            unreadable.append(place)
            continue
        modes[header.mode] += 1
        sides.append(min(header.width, header.height))
        images_NSSC[place] = np.asarray(image)
        thumbs_NTT[place] = np.asarray(image.convert("L").resize((_THUMB, _THUMB), Image.Resampling.BOX))
        digest = hashlib.blake2b(images_NSSC[place].tobytes(), digest_size=8).digest()
        digests_N[place] = int.from_bytes(digest, "little")
    here_NSSC = np.asarray(images_NSSC[chunk.start : chunk.end])
    good = np.isin(np.arange(chunk.start, chunk.end), unreadable, invert=True)
    pixels_PC = here_NSSC[good].reshape(-1, 3)
    counts_CL = np.stack([np.bincount(pixels_PC[:, channel], minlength=256) for channel in range(3)])
    levels_L = np.arange(256)
    noted = chunk.model_copy(
        update={
            "digest": hashlib.sha256(here_NSSC.tobytes()).hexdigest(),
            "sums": tuple((counts_CL @ levels_L).tolist()),
            "square_sums": tuple((counts_CL @ levels_L**2).tolist()),
            "unreadable": tuple(unreadable),
            "modes": dict(modes),
            "shorter_sides": tuple(sides),
        }
    )
    for array in (images_NSSC, thumbs_NTT, digests_N):
        array.flush()
    _write(_chunk_file(part, chunk), noted.model_dump_json())
    return noted


def _square(image: Image.Image, side: int) -> Image.Image:
    """The middle square, resized."""
    shorter = min(image.size)
    if image.size == (side, side):
        return image
    left, top = (image.width - shorter) / 2, (image.height - shorter) / 2
    return image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + shorter, top + shorter))


def _describe(part: Path, source: Source, job: _Job, chunks: list[_Chunk]) -> tuple[Description, Findings]:
    unreadable = {split: [place for c in chunks if c.split == split for place in c.unreadable] for split in SPLITS}
    labels = {split: source.labels[split].astype(np.int64) for split in SPLITS}
    for split, labels_N in labels.items():
        labels_N[unreadable[split]] = UNREADABLE
        if not (labels_N != UNREADABLE).any():
            rule = f"must be readable at least once in {split}"
            raise wrong("image", f"{rule}, got {len(labels_N)} that are not", source.name)
        np.save(labels_file(part, split), labels_N)
    num_in_class = np.bincount(labels["train"][labels["train"] != UNREADABLE], minlength=len(source.class_names))
    if not num_in_class.all():
        empty = source.class_names[int(np.argmin(num_in_class))]
        raise wrong("image", "must be readable at least once in each class of train, got none in", empty)
    mean, std = _statistics([chunk for chunk in chunks if chunk.split == "train"], job.side, source)
    digests = (chunk.digest.encode() for chunk in chunks)
    fingerprint = fingerprint_of(
        [
            *(name.encode(errors="surrogateescape") for name in source.class_names),
            *(labels[split].tobytes() for split in SPLITS),
            *digests,
        ]
    )
    description = Description(
        version=VERSION,
        source=source.name,
        resolution=job.resolution,
        side=job.side,
        class_names=source.class_names,
        num_images={split: len(labels[split]) for split in SPLITS},
        mean=mean,
        std=std,
        fingerprint=fingerprint,
        unreadable=tuple(source.path(split, place) for split in SPLITS for place in unreadable[split]),
    )
    sides = sorted(side for chunk in chunks for side in chunk.shorter_sides)
    num_duplicates, duplicates = _find_duplicates(part, source, labels)
    findings = Findings(
        class_sizes=dict(zip(source.class_names, num_in_class.tolist(), strict=True)),
        modes=dict(sum((Counter(dict(chunk.modes)) for chunk in chunks), Counter[str]()).most_common()),
        shorter_side=(sides[0], sides[len(sides) // 2], sides[-1]),
        num_enlarged=sum(side < job.side for side in sides),
        num_unreadable=sum(map(len, unreadable.values())),
        num_duplicates=num_duplicates,
        duplicates=tuple(duplicates[:_MOST_PAIRS]),
        num_bytes=sum(images_file(part, split).stat().st_size for split in SPLITS),
    )
    return description, findings


def _statistics(chunks: list[_Chunk], side: int, source: Source) -> tuple[Channels, Channels]:
    """Mean and standard deviation of each channel of the training images; for ImageNet those that all use."""
    names = source.class_names
    if len(names) == _WORDNET and all(len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in names):
        return IMAGENET_MEAN, IMAGENET_STD
    num_pixels = side**2 * sum(chunk.end - chunk.start - len(chunk.unreadable) for chunk in chunks)
    sums, squares = (np.sum([getattr(chunk, name) for chunk in chunks], axis=0) for name in ("sums", "square_sums"))
    mean = sums / num_pixels
    std = np.sqrt(np.maximum(squares / num_pixels - mean**2, 1.0))  # of images of one colour, one level
    return cast(tuple[Channels, Channels], tuple(tuple((values / 255).round(6).tolist()) for values in (mean, std)))


def _find_duplicates(
    part: Path, source: Source, labels: Mapping[Split, NDArray[np.int64]]
) -> tuple[dict[str, dict[str, int]], list[Duplicate]]:
    """Images of val and test that train has too: with the same bytes, or alike in grey and small."""
    good = {split: np.flatnonzero(labels_N != UNREADABLE) for split, labels_N in labels.items()}
    thumbs = {split: np.load(_thumbs_file(part, split), mmap_mode="r")[good[split]] for split in SPLITS}
    digests = {split: np.load(_digests_file(part, split))[good[split]] for split in SPLITS}
    order_N = np.argsort(digests["train"], kind="stable")
    counts, found = {}, []
    for split in ("val", "test"):
        places_M, is_exact_M = nearest(thumbs[split], thumbs["train"]), np.isin(digests[split], digests["train"])
        exact_M = order_N[np.searchsorted(digests["train"], digests[split], sorter=order_N).clip(max=len(order_N) - 1)]
        places_M = np.where(is_exact_M, exact_M, places_M)
        counts[split] = {"exact": int(is_exact_M.sum()), "near": int((places_M >= 0).sum() - is_exact_M.sum())}
        found += [
            Duplicate(
                image=source.path(split, int(good[split][index])),
                of=source.path("train", int(good["train"][places_M[index]])),
                exact=bool(is_exact_M[index]),
            )
            for index in np.flatnonzero(places_M >= 0).tolist()
        ]
    return counts, sorted(found, key=lambda pair: not pair.exact)


def nearest(thumbs_MTT: NDArray[np.uint8], others_NTT: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For each small grey image the place of the one among the others that looks the same; -1 where there is none.

    Two look the same where they correlate by more than 0.96 and differ by 20 of 255 levels or less in the mean: of
    CIFAR-10 most such pairs are one photograph twice, and some are two ships on two seas. Images of a single grey are
    never taken for one another.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found_M = np.full(len(thumbs_MTT), -1)
    best_M = np.full(len(thumbs_MTT), _ALIKE)
    for start in range(0, len(others_NTT), 2**16):
        others_NP = _standardised(others_NTT[start : start + 2**16], device)
        for first in range(0, len(thumbs_MTT), 2**11):
            here = slice(first, first + 2**11)
            alike_M, place_M = (_standardised(thumbs_MTT[here], device) @ others_NP.T).max(1)
            alike, place = alike_M.cpu().numpy(), place_M.cpu().numpy() + start
            difference = np.abs(thumbs_MTT[here].astype(np.float32) - others_NTT[place]).mean((1, 2))
            better = (alike > best_M[here]) & (difference <= _FEW_LEVELS)
            found_M[here][better], best_M[here][better] = place[better], alike[better]
    return found_M


def _standardised(thumbs_NTT: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Of mean 0 and length 1, as rows; a single grey becomes zeros."""
    thumbs_NP = torch.from_numpy(np.asarray(thumbs_NTT)).to(device).flatten(1).float()
    centred_NP = thumbs_NP - thumbs_NP.mean(1, keepdim=True)
    return centred_NP / centred_NP.norm(dim=1, keepdim=True).clamp(min=float(_THUMB))


def _note(part: Path, description: Description, findings: Findings) -> None:
    """What a person reads, then what `prepared:` reads."""
    _write(part / FINDINGS, json.dumps(findings.model_dump(), indent=1) + "\n")
    _write(part / DOCUMENT, json.dumps(description.model_dump(), indent=1) + "\n")


def _clear(out: Path) -> None:
    """Remove what only the work needed."""
    for split in SPLITS:
        _thumbs_file(out, split).unlink(missing_ok=True)
        _digests_file(out, split).unlink(missing_ok=True)
    shutil.rmtree(out / "chunks", ignore_errors=True)
    (out / "job.json").unlink(missing_ok=True)
    (out / "lock").unlink(missing_ok=True)
