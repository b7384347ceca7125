"""Reading images of every mode, damaged ones too; Pillow and arithmetic are the oracle."""

import io
import os
import random
import re
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metaformer.images import ImageError, read_header, read_image

DEEP = np.array([[0, 128, 129, 255, 256, 257, 25700, 32767, 65535]], dtype=np.uint16)
NOISE = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> NDArray[np.uint8]:
    image = read_image(io.BytesIO(data))
    assert image.mode == "RGB"
    return np.asarray(image)


def deep(mode: str, values: NDArray[np.generic] = DEEP) -> Image.Image:
    types = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}
    return Image.frombytes(mode, values.shape[::-1], values.astype(types[mode]).tobytes())


@pytest.mark.parametrize(
    "data",
    [
        encoded(deep("I;16"), "PNG"),
        encoded(deep("I;16"), "TIFF"),
        encoded(deep("I;16B"), "TIFF"),
        encoded(deep("I"), "TIFF"),
        b"P5 9 1 65535\n" + DEEP.astype(">u2").tobytes(),
    ],
    ids=["png", "tiff", "big-endian tiff", "32-bit tiff", "pgm"],
)
def test_grey_of_16_bits_becomes_the_nearest_of_8(data: bytes) -> None:
    nearest = np.rint(DEEP * (255 / 65535)).astype(np.uint8)
    assert np.array_equal(pixels(data), np.stack([nearest] * 3, axis=-1))
    assert pixels(data)[0, 6].tolist() == [100] * 3  # Pillow alone clips at 255


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_other_modes_are_converted_by_pillow(mode: str) -> None:
    image = Image.fromarray(NOISE).convert(mode)
    assert np.array_equal(pixels(encoded(image, "TIFF")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_dropped_and_hides_nothing(mode: str) -> None:
    image = Image.fromarray(NOISE).convert(mode)
    opaque = np.asarray(image.convert("RGB"))
    image.putalpha(Image.fromarray(NOISE[:, :, 0]))
    assert np.array_equal(pixels(encoded(image, "PNG")), opaque)


@pytest.mark.parametrize("transparency", [1, b"\x10\x20\x30"])
def test_a_palette_with_transparency_gives_its_colours(transparency: object) -> None:
    image = Image.fromarray(NOISE).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    assert np.array_equal(pixels(encoded(image, "PNG", transparency=transparency)), np.asarray(image.convert("RGB")))


def test_the_first_of_several_frames_counts() -> None:
    first, second = Image.fromarray(NOISE), Image.fromarray(NOISE[::-1].copy())
    assert np.array_equal(pixels(encoded(first, "PNG", save_all=True, append_images=[second])), NOISE)


def test_an_orientation_in_exif_changes_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    plain, turned = (encoded(Image.fromarray(NOISE), "JPEG", **options) for options in ({}, {"exif": exif}))
    assert b"Exif" in turned
    assert np.array_equal(pixels(turned), pixels(plain))


def test_a_path_a_name_and_an_open_file_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(NOISE), "PNG"))
    with path.open("rb") as file:
        for source in (path, str(path), file):
            assert np.array_equal(np.asarray(read_image(source)), NOISE)
            assert read_header(source)[:2] == (9, 12)
        assert not file.closed


def test_a_size_is_read_from_the_header_alone() -> None:
    whole = encoded(Image.new("RGB", (300, 200)), "PNG")
    assert read_header(io.BytesIO(whole[:60])) == (300, 200, "RGB")
    with pytest.raises(ImageError, match=r"^image: must be readable, got "):
        read_image(io.BytesIO(whole[:60]))


# Errors


def unreadable(tmp_path: Path, name: str, data: bytes) -> str:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError, match=rf"^image: must be readable, got '.*{re.escape(name)}' \(.+\)$") as caught:
        read_image(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_what_is_no_image_or_half_of_one_is_named_in_one_line(tmp_path: Path) -> None:
    unreadable(tmp_path, "empty.png", b"")
    unreadable(tmp_path, "text.jpg", b"no image")
    unreadable(tmp_path, "half.jpg", encoded(Image.fromarray(NOISE), "JPEG")[:400])
    with pytest.raises(ImageError, match=r"^image: must be readable, got '.*none.png' \(.*No such file"):
        read_image(tmp_path / "none.png")


def test_pixels_at_an_offset_that_is_no_whole_number_are_named_in_one_line(tmp_path: Path) -> None:
    """Pillow 13 raises TypeError, as after no other damage."""
    sound = encoded(Image.fromarray(NOISE), "TIFF")
    offsets, whole, fraction = 273, 4, 11  # a tag and two types of TIFF
    assert struct.pack("<HH", offsets, whole) in sound
    spoilt = sound.replace(struct.pack("<HH", offsets, whole), struct.pack("<HH", offsets, fraction))
    assert "cannot be interpreted as an integer" in unreadable(tmp_path, "a.tif", spoilt)


def test_values_without_a_fixed_range_are_refused(tmp_path: Path) -> None:
    assert "mode F: floating-point" in unreadable(tmp_path, "a.tif", encoded(deep("F"), "TIFF"))
    for values in (DEEP.astype(np.int64) - 1, DEEP.astype(np.int64) + 1):
        said = unreadable(tmp_path, "b.tif", encoded(deep("I", values), "TIFF"))
        assert "mode I: values must be from 0 to 65535" in said


def bitmap(width: int, height: int) -> bytes:
    """An image of one bit a pixel, all black, without a byte of compression."""
    return b"P4 %d %d\n" % (width, height) + bytes((width + 7) // 8 * height)


def test_a_large_image_is_read_in_silence_and_a_huge_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # of Pillow's 89 million
    with pytest.warns(Image.DecompressionBombWarning), Image.open(io.BytesIO(bitmap(400, 300))):
        pass
    assert read_image(io.BytesIO(bitmap(400, 300))).size == (400, 300)  # warnings are errors here
    assert "exceeds limit" in unreadable(tmp_path, "huge.pbm", bitmap(500, 500))


def test_damaged_exif_data_are_no_reason_to_refuse_or_to_warn() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    data = encoded(Image.fromarray(NOISE), "JPEG", exif=exif)
    start = data.index(b"Exif") + 6
    spoilt = data[: start + 8] + b"\xff\xff" + data[start + 10 :]  # the number of entries
    with pytest.warns(UserWarning, match="Corrupt EXIF data"), Image.open(io.BytesIO(spoilt)):
        pass
    assert np.array_equal(pixels(spoilt), pixels(data))


def test_warnings_of_others_are_shown_as_before() -> None:
    before = list(warnings.filters)
    read_image(io.BytesIO(encoded(Image.fromarray(NOISE), "PNG")))
    assert warnings.filters == before


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP"])
def test_however_a_file_is_damaged_it_is_an_image_or_one_line(kind: str) -> None:
    sound, draw = encoded(Image.fromarray(NOISE), kind), random.Random(0)
    num_read, said = 0, []
    for _ in range(1500):
        data = bytearray(sound)
        for _ in range(draw.choice([1, 2, 8])):
            data[draw.randrange(draw.choice([60, len(data)]) % len(data) or len(data))] = draw.randrange(256)
        if draw.random() < 0.2:
            del data[draw.randrange(len(data)) :]
        try:
            width, height, _ = read_header(io.BytesIO(bytes(data)))
            if width * height < 10**6:
                num_read += read_image(io.BytesIO(bytes(data))).mode == "RGB"
        except ImageError as error:
            said.append(str(error))
    assert num_read
    assert said
    assert all(len(text.splitlines()) == 1 for text in said)


def test_a_pipe_and_a_device_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", "/dev/zero", tmp_path):
        for read in (read_image, read_header):
            with pytest.raises(ImageError, match=r"^image: must be readable, got '.*' \(is no regular file\)$"):
                read(path)
