"""Images per second into the training step: prepared arrays beside timm's loader on the same JPEGs.

Command:   python -m benchmarks.data
Hardware:  one CPU core is enough; with a GPU the images end there
Time:      about 2 minutes
Expected:  at least 10 times timm's loader per core, at 32 and at 224 pixels, for crop and flip

JPEGs of 32 and of 256 pixels are written (or taken from --data), prepared once, and then read by both, in this process:
timm's loader decodes, crops, flips and normalises image by image; ours crops, flips and normalises whole batches. A
round measures one after the other, and each round begins with the other; a ratio is taken within a round. `shift` is
the crop of CIFAR's recipes, moved by some pixels, which timm has not; it is set beside timm's random resized crop.

B batch, C channels, H height, W width.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import torch
from PIL import Image

from benchmarks.train_step import machine
from nas.data import Dataset, open_dataset
from nas.data.packing import choose_side, pack
from nas.data.sources import Source, open_source
from nas.study.recipe import Augmentation, Recipe

_PLAIN = Augmentation(rand_augment=None, random_erasing=0, mixup=0, cutmix=0)
AUGMENTATIONS = {
    "crop + flip": (_PLAIN, _PLAIN),
    "shift + flip": (_PLAIN.model_copy(update={"crop_scale": (1.0, 1.0), "shift": 4}), _PLAIN),
    "poolformer": (Augmentation(), Augmentation()),
}


def write_jpegs(root: Path, *, side: int, num_images: int) -> None:
    """Two classes of photograph-like JPEGs: smooth noise at several scales."""
    draw = np.random.default_rng(0)
    for part, number in (("train", num_images), ("val", 2)):
        for label in ("a", "b"):
            folder = root / part / label
            folder.mkdir(parents=True)
            for index in range(max(2, number // 2)):
                layers = [
                    Image.fromarray(draw.integers(0, 256, (grid, grid, 3), dtype=np.uint8)).resize((side, side))
                    for grid in (max(2, side // size) for size in (4, 16, 64))
                ]
                pixels = sum(np.asarray(layer, dtype=float) for layer in layers)
                Image.fromarray((pixels / 3).astype(np.uint8)).save(folder / f"{index}.jpg", quality=90)


def batches_for_ever(dataset: Dataset, recipe: Recipe, device: torch.device) -> Iterator[int]:
    """The number of images of each training batch, which is on the device when it is counted."""
    epoch = 0
    while True:
        for batch in dataset.train_batches(recipe, epoch=epoch, seed=0, device=device):
            yield len(batch.x_BCHW)
        epoch += 1


def measure(counts: Iterator[int], *, seconds: float, device: torch.device) -> float:
    """Images per second."""
    next(counts)
    start, num_images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        num_images += next(counts)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return num_images / (time.perf_counter() - start)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Images per second of prepared arrays beside timm's loader on the same JPEGs.",
        epilog="examples:\n  python -m benchmarks.data\n  python -m benchmarks.data --data folder:/data/cifar10",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", help="folder:PATH to read instead of generated JPEGs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="at least 2 (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a measurement (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="of timm's loader; 0: in this process (default)")
    return parser


def main() -> None:
    options = make_parser().parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    print(machine(device))
    print(f"batch {options.batch_size}, {options.rounds} rounds; images per second, medians; ratios with quartiles\n")
    print("| images | augmentation | prepared | timm | prepared / timm |")
    print("| --- | --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        if options.data is not None:
            one(open_source(options.data), None, Path(scratch), device, options)
            return
        for resolution, side in ((32, 32), (224, 256)):
            root = Path(scratch) / str(resolution)
            write_jpegs(root, side=side, num_images=4 * options.batch_size)
            one(open_source(f"folder:{root}"), resolution, Path(scratch), device, options)


def one(
    source: Source, resolution: int | None, scratch: Path, device: torch.device, options: argparse.Namespace
) -> None:
    """Prepare a dataset and compare."""
    resolution = resolution or source.look().resolution
    prepared = scratch / f"prepared-{resolution}"
    side = choose_side(source, resolution)
    pack(source, prepared, resolution=resolution, side=side, num_workers=1, bad_images="stop")
    compare(f"{resolution} px", source.name, f"prepared:{prepared}", resolution, device, options)


def compare(
    label: str, folder: str, prepared: str, resolution: int, device: torch.device, options: argparse.Namespace
) -> None:
    """One row for each augmentation."""
    ours = open_dataset(prepared, resolution=resolution)
    timms = open_dataset(folder, resolution=resolution, num_workers=options.workers)
    for name, augmentations in AUGMENTATIONS.items():
        counts = []
        for dataset, augmentation in zip((ours, timms), augmentations, strict=True):
            recipe = Recipe(batch_size=options.batch_size, augmentation=augmentation)
            counts.append(batches_for_ever(dataset, recipe, device))
        speeds: list[list[float]] = [[], []]
        order = [0, 1]
        for _ in range(options.rounds):
            for index in order:
                speeds[index].append(measure(counts[index], seconds=options.seconds, device=device))
            order.reverse()
        low, middle, high = quantiles([a / b for a, b in zip(*speeds, strict=True)], n=4, method="inclusive")
        rates = " | ".join(f"{median(found):,.0f}" for found in speeds)
        print(f"| {label} | {name} | {rates} | {middle:.1f} ({low:.1f}-{high:.1f}) |", flush=True)


if __name__ == "__main__":
    main()
