"""A folder that keeps decoded copies of datasets, so that each is decoded once however many searches read it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from metaformer.errors import one_line
from nas.data.packing import SPLITS, choose_side, pack
from nas.data.prepared import DOCUMENT
from nas.data.registry import DataError, find_dataset, short_name, wrong
from nas.data.sources import Source
from nas.data.streamed import Streamed
from nas.study.recipe import BadImages

_MIB = 2**20


def is_decoded(data: str) -> bool:
    """Whether a dataset needs no decoding, such as `digits` and `prepared:PATH`.

    Raises:
        DataError: No dataset has this name.
    """
    return not issubclass(find_dataset(data)[0], Streamed)


class Cache:
    """Copies below one folder, each under a name that says of which images it is and how they are stored."""

    def __init__(self, root: Path, *, most_bytes: int) -> None:
        """`most_bytes` is for all copies together."""
        self._root, self._most_bytes = root.absolute(), most_bytes

    def place(self, source: Source, *, resolution: int, bad_images: BadImages) -> Path:
        """Where the copy of a dataset lies, or would lie."""
        stem = one_line(short_name(source.name), 50).replace("/", "_")
        side = choose_side(source, resolution)
        return self._root / f"{stem}-{source.fingerprint}-{resolution}-{side}-{bad_images}"

    def keep(
        self,
        source: Source,
        *,
        resolution: int,
        bad_images: BadImages,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> str:
        """The name of the copy of a dataset, such as `prepared:PATH`; it is made if it is not there.

        Args:
            resolution: In pixels.
            progress: Is told how many images more are done, and how many there are.
        Raises:
            DataError: The images cannot be read, or the copy would not fit into the limit or onto the disk.
        """
        copy = self.place(source, resolution=resolution, bad_images=bad_images)
        if not (copy / DOCUMENT).exists():
            side = choose_side(source, resolution)
            num_images = sum(len(source.labels[split]) for split in SPLITS)
            self._check_room(num_images * side**2 * 3, copy)
            pack(
                source,
                copy,
                resolution=resolution,
                side=side,
                num_workers=len(os.sched_getaffinity(0)),
                bad_images=bad_images,
                progress=lambda done: progress(done, num_images),
            )
        return f"prepared:{copy}"

    def _check_room(self, num_bytes: int, copy: Path) -> None:
        """Raises DataError where a copy of so many bytes would be too much, beside what other copies take."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._root).free
        except OSError as error:
            raise wrong("cache", f"must be a folder that can be made ({error.strerror})", str(self._root)) from None
        part = copy.with_name(f"{copy.name}.part")
        taken = sum(_num_bytes(other) for other in self._root.iterdir() if other != part)
        for rule, most in (("--cache-limit", self._most_bytes - taken), ("the disk", free + _num_bytes(part))):
            if num_bytes > most:
                raise DataError(
                    f"cache: must have room for {num_bytes / _MIB:,.1f} MiB of decoded images, got "
                    f"{max(0, most) / _MIB:,.1f} MiB that {rule} leaves in {str(self._root)!r}"
                )


def _num_bytes(root: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) if root.is_dir() else 0
