"""Images in files, read in one way by validation and by the search."""

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from metaformer.errors import UserError, one_line, shown

Source = str | os.PathLike[str] | IO[bytes]
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's
_UNREADABLE = (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError)  # all seen from damaged files


class ImageError(UserError):
    """An image that cannot be read; the message is one line and names the file."""


def read_image(source: Source) -> Image.Image:
    """The image in RGB, 8 bits a channel.

    One rule for the search and for validation. Grey of 16 bits is scaled to 8, where Pillow alone would clip at 255,
    also where a TIFF stores it in 32 bits; other values of 32 bits and floating-point ones are refused. Transparency is
    dropped. Of several frames the first counts. An orientation noted in EXIF is not applied, as in timm. Pillow's
    warnings, such as of damaged EXIF data or of more than 89 million pixels, are not shown; above twice as many pixels
    Pillow refuses.

    Raises:
        ImageError: The file is not there, no regular file, damaged, too large, or its values have no fixed range
            (floats, 32 bits).
    """
    with _open(source) as image:
        if image.mode == "F":
            raise ValueError("mode F: floating-point values have no fixed range")
        if image.mode.startswith("I"):
            return _to_8_bits(image).convert("RGB")
        if image.mode == "P" and "transparency" in image.info:  # Pillow warns of the direct way
            return image.convert("RGBA").convert("RGB")
        return image.convert("RGB")


class Header(NamedTuple):
    """What is known of an image before it is decoded."""

    width: int  # in pixels
    height: int
    mode: str  # Pillow's: RGB, L, P, CMYK, I;16, ...


def read_header(source: Source) -> Header:
    """Size and mode, from the header alone.

    Raises:
        ImageError: The header cannot be read.
    """
    with _open(source) as image:
        return Header(*image.size, image.mode)


@contextmanager
def _open(source: Source) -> Iterator[Image.Image]:
    """The image inside `with`; what goes wrong there becomes an ImageError."""
    try:
        if isinstance(source, str | os.PathLike) and not stat.S_ISREG(os.stat(source).st_mode):  # noqa: PTH116
            raise ValueError("is no regular file")  # a pipe would be waited for
        with warnings.catch_warnings(action="ignore"), Image.open(source) as image:
            yield image
    except _UNREADABLE as error:
        name = os.fspath(source) if isinstance(source, str | os.PathLike) else str(getattr(source, "name", source))
        raise ImageError(f"image: must be readable, got {shown(name)} ({one_line(_reason(error), 150)})") from error


def _reason(error: BaseException) -> str:
    """What went wrong, without the name of the file, which the message has already."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 0 to 65535 as the nearest of 0 to 255, like libpng's `png_set_scale_16`."""
    values = np.asarray(image).astype(np.int32)
    if values.min() < 0 or values.max() > 65535:  # mode I holds 16 bits in PGM, up to 32 in TIFF
        raise ValueError(f"mode {image.mode}: values must be from 0 to 65535")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
