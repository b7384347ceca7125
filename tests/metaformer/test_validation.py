"""Accuracy on a folder of images, compared with Pillow and torch written out.

B batch, C channels, H height, W width, K classes, N images.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from metaformer import Architecture, ArchitectureError, build, zoo
from metaformer.specs import AttentionSpec, Head, PoolSpec, SpatialMlpSpec, Stage, Stem
from metaformer.validation import (
    ImageFolderError,
    adapt,
    check_fit,
    find_device,
    measure_accuracy,
    open_folder,
)
from metaformer.zoo import Preprocessing

CLASSES = [f"class{i}" for i in (0, 1, 2, 3, 4, 10, 11)]  # in natural order, not in that of text
CPU = torch.device("cpu")
ARCH = Architecture(
    resolution=32,
    stem=Stem(kernel=4, stride=4, padding=0),
    stages=(
        Stage(depth=1, width=8, mixer=PoolSpec(), layer_scale=1.0),
        Stage.model_validate({"depth": 1, "width": 16, "mixer": AttentionSpec(head_size=8), "downsample": {}}),
    ),
    head=Head(num_classes=len(CLASSES)),
)
SEEN = Preprocessing(resolution=32, crop_pct=0.75, interpolation="bilinear", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def write_images(folder: Path, *, seed: int = 0) -> None:
    """Three pictures of each class, smooth, of different sizes and modes."""
    random = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for index, (mode, size) in enumerate([("RGB", (48, 37)), ("L", (40, 64)), ("RGBA", (90, 41))]):
            pixels = random.integers(0, 256, (5, 6, len(mode)), dtype=np.uint8).squeeze()
            image = Image.fromarray(pixels, mode=None).resize(size, Image.Resampling.BICUBIC)
            image.save(folder / name / f"{index}.png")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with val, a broken image elsewhere, an architecture and its weights."""
    root = tmp_path_factory.mktemp("photos")
    write_images(root / "data/val")
    write_images(root / "broken", seed=1)
    (root / "broken/class2/1.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    torch.manual_seed(0)
    model = build(ARCH)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    torch.nn.init.normal_(model.head.fc.weight, std=3.0)
    torch.save(model.state_dict(), root / "weights.pth")
    (root / "arch.yaml").write_text(ARCH.to_yaml(), encoding="utf-8")
    return root


def trained(root: Path) -> Any:
    model = build(ARCH)
    model.load_state_dict(torch.load(root / "weights.pth", weights_only=True))
    return model.eval()


def pictures(folder: Path, seen: Preprocessing) -> Iterator[tuple[Tensor, int]]:
    """Each image and its class, prepared by hand."""
    for label, name in sorted(enumerate(CLASSES), key=lambda pair: pair[1]):
        for path in sorted((folder / name).iterdir()):
            image = Image.open(path).convert("RGB")
            short = int(seen.resolution / seen.crop_pct)
            width, height = (
                (short, int(short * image.height / image.width))
                if image.width < image.height
                else (int(short * image.width / image.height), short)
            )
            resampling = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
            image = image.resize((width, height), resampling[seen.interpolation])
            left, top = round((width - seen.resolution) / 2), round((height - seen.resolution) / 2)
            image = image.crop((left, top, left + seen.resolution, top + seen.resolution))
            values_HWC = (np.asarray(image, dtype=np.float32) / 255 - seen.mean) / seen.std
            yield torch.from_numpy(values_HWC.transpose(2, 0, 1)).float(), label


@torch.no_grad()
def by_hand(root: Path, seen: Preprocessing) -> tuple[float, float]:
    """Percent of images whose class comes first, and among the first five."""
    x_N, y_N = zip(*pictures(root / "data/val", seen), strict=True)
    order_NK = trained(root)(torch.stack(x_N)).argsort(dim=1, descending=True)
    hit_NK = order_NK == torch.tensor(y_N)[:, None]
    return 100 * float(hit_NK[:, 0].float().mean()), 100 * float(hit_NK[:, :5].any(1).float().mean())


def open_val(root: Path, seen: Preprocessing = SEEN) -> Any:
    return open_folder(root / "data", None, seen, num_classes=len(CLASSES))


def test_images_are_prepared_as_by_hand(photos: Path) -> None:
    images = open_val(photos)
    for (x_CHW, label), (expected_CHW, expected) in zip(images, pictures(photos / "data/val", SEEN), strict=True):
        assert label == expected
        torch.testing.assert_close(x_CHW, expected_CHW, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_accuracy_is_that_counted_by_hand(photos: Path, num_workers: int) -> None:
    seen: list[int] = []
    accuracy = measure_accuracy(
        trained(photos), open_val(photos), batch_size=4, num_workers=num_workers, device=CPU, on_batch=seen.append
    )
    top1, top5 = by_hand(photos, SEEN)
    assert 0 < top1 < top5 < 100, "the example must tell the two apart"
    assert (accuracy.top1, accuracy.top5) == pytest.approx((top1, top5))
    assert (accuracy.num_images, accuracy.num_classes) == (21, 7)
    assert seen == [4, 4, 4, 4, 4, 1]


def test_a_model_in_training_is_measured_as_in_use(photos: Path) -> None:
    """Batch norm shows it: statistics of the batch would depend on its size."""
    raw = ARCH.model_dump()
    raw["stages"][0]["norm"]["kind"] = "batch_norm"
    torch.manual_seed(0)
    model = build(Architecture.model_validate(raw)).train()
    sizes = [measure_accuracy(model.train(), open_val(photos), batch_size=size, device=CPU) for size in (2, 21)]
    assert sizes[0].top5 == sizes[1].top5
    assert int(model.stages[0].blocks[0].mixer.norm.num_batches_tracked) == 0


def test_in_bfloat16_the_model_computes_in_bfloat16(photos: Path) -> None:
    model, seen = trained(photos), []
    model.head.fc.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    for precision in ("float32", "bfloat16"):
        measure_accuracy(model, open_val(photos), batch_size=21, device=CPU, precision=precision)
    assert seen == [torch.float32, torch.bfloat16]


def test_the_classes_may_lie_in_the_folder_itself(photos: Path) -> None:
    here = open_folder(photos / "data/val", None, SEEN, num_classes=7)
    assert here.samples == open_val(photos).samples
    assert open_folder(photos / "data", "val", SEEN, num_classes=7).samples == here.samples


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(photos: Path, num_workers: int) -> None:
    images = open_folder(photos / "broken", None, SEEN, num_classes=7)
    with pytest.raises(ImageFolderError, match=r"^image: must be readable, got '.*class2/1.png' \(") as caught:
        measure_accuracy(trained(photos), images, num_workers=num_workers, device=CPU)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_as_it_must_be_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageFolderError, match=r"^data: must be a folder, got '.*/none'$"):
        open_folder(tmp_path / "none", None, SEEN, num_classes=7)
    with pytest.raises(ImageFolderError, match=r"^split: must be a folder in '.*data', got 'test'$"):
        open_folder(photos / "data", "test", SEEN, num_classes=7)
    with pytest.raises(ImageFolderError, match=r"^data: '.*val' must hold as many folders .* classes, 1000, got 7$"):
        open_folder(photos / "data", None, SEEN, num_classes=1000)
    for name in CLASSES:
        (tmp_path / name).mkdir()
    with pytest.raises(ImageFolderError, match="must hold images in the folders of its classes, found none$"):
        open_folder(tmp_path, None, SEEN, num_classes=7)


def test_a_model_that_cannot_see_such_images_is_refused() -> None:
    grey = ARCH.model_copy(update={"stem": Stem(in_channels=1)})
    with pytest.raises(ImageFolderError, match="^in_channels: must be 3, for red, green and blue, got 1$"):
        check_fit(grey, SEEN)
    fixed = Architecture(resolution=32, stages=(Stage(depth=1, width=8, mixer=SpatialMlpSpec()),))
    with pytest.raises(ArchitectureError, match="^resolution: must be 32, which a spatial MLP"):
        check_fit(fixed, Preprocessing(resolution=64))
    check_fit(fixed, SEEN)


def test_preprocessing_is_changed_where_it_is_asked_for() -> None:
    published = zoo.preprocessing("poolformer_m36")
    assert adapt(published, resolution=None, crop_pct=None) == published
    assert adapt(published, resolution=256, crop_pct=1.0) == Preprocessing(resolution=256, crop_pct=1.0)
    with pytest.raises(ImageFolderError, match=r"^crop_pct: input should be less than or equal to 1, got 1.5$"):
        adapt(published, resolution=None, crop_pct=1.5)


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ImageFolderError, match=f"^device: must be one that torch finds here, .* got '{name}'$"):
        find_device(name)
    assert find_device("cpu") == CPU


def validate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "metaformer", "validate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_program_prints_the_accuracy_counted_by_hand(photos: Path) -> None:
    where = (photos / "arch.yaml", "--data", photos / "data", "--checkpoint", photos / "weights.pth", "--workers", 0)
    top1, top5 = by_hand(photos, zoo.preprocessing(ARCH).model_copy(update={"crop_pct": 0.8}))
    done = validate(*where, "--crop-pct", 0.8, "--device", "cpu", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["top1"], found["top5"]) == pytest.approx((top1, top5))
    assert found["preprocessing"]["crop_pct"] == 0.8
    assert found["published_top1"] is None


@pytest.mark.slow
def test_the_program_prints_what_the_paper_measured_beside_its_own(tmp_path: Path) -> None:
    """One picture in a thousand classes: either always right or never."""
    for label in range(1000):
        (tmp_path / f"n{label:04}").mkdir()
    Image.new("RGB", (60, 50), "green").save(tmp_path / "n0500" / "0.png")
    torch.manual_seed(0)
    model = build("metaformer_id_s12")
    torch.nn.init.zeros_(model.head.fc.weight)
    model.head.fc.bias.data[500] = 1
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    done = validate("metaformer_id_s12", "--data", tmp_path, "--checkpoint", tmp_path / "weights.pth", "--workers", 0)
    lines = done.stdout.splitlines()
    assert lines[0] == f"metaformer_id_s12 on {tmp_path}, 224 pixels, crop 0.9"
    assert lines[2] == "top-1   100.00 %, published 74.3 % (MetaFormer paper arXiv:2111.11418v3 Table 5)"
    assert lines[3] == "top-5   100.00 %"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("poolformer_s13", "--data", "data"), "model: unknown name 'poolformer_s13'"),
        (("poolformer_s12", "--data", "none"), "data: must be a folder, got 'none'"),
    ],
)
def test_what_is_asked_wrongly_is_one_line_and_code_2(arguments: tuple[str, ...], message: str) -> None:
    done = validate(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.timeout(60)
def test_links_that_lead_back_are_not_followed_and_loops_are_no_classes(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "linked"
    shutil.copytree(photos / "data", root)
    folder = root / "val" / CLASSES[0]
    (folder / "back").symlink_to(folder)
    (folder / "also" / "in").mkdir(parents=True)
    (folder / "also" / "in" / "back").symlink_to(folder / "also")
    (root / "val" / "loop").symlink_to(root / "val" / "loop")
    os.mkfifo(folder / "pipe.png")
    here, there = (Path(images.root) for images in (open_val(photos), open_folder(root, None, SEEN, num_classes=7)))
    assert [
        (str(Path(path).relative_to(there)), label)
        for path, label in open_folder(root, None, SEEN, num_classes=7).samples
    ] == [(str(Path(path).relative_to(here)), label) for path, label in open_val(photos).samples]
