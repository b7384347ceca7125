"""Where a trial's time goes: data, forward, backward, optimiser, evaluation, checkpoint; on a GPU, how busy it is.

Command:   python -m benchmarks.trial --data prepared:/fast/cifar10
Hardware:  one CPU core, or one GPU
Time:      about two minutes on a CPU core, half a minute on a GPU
Expected:  at least 90 % in forward, backward and optimiser on a CPU; a GPU at least 90 % busy

Each model is trained by the search's own loop; its first epoch warms up. On a CPU Python's profiler tells the parts of
the second. On a GPU the CPU only starts kernels, so that parts of its time say nothing: there the second epoch gives
images per second, and torch's profiler the time of every kernel of the third. Busy is the part of that epoch in which a
kernel ran, and the same kernels' part of the second, which no profiler slowed.
"""

import argparse
import cProfile
import itertools
import pstats
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import search_spaces as spaces
from benchmarks.train_step import machine
from metaformer import Architecture, zoo
from metaformer.errors import UserError
from nas.data import Batch, DataInfo, Dataset, Split, default_recipe, look, open_dataset
from nas.make_study import default_settings
from nas.study.lease import Lease, Report
from nas.study.recipe import Recipe
from nas.study.recipe_files import find_recipe
from nas.training.loop import train

PARTS = {  # functions of the training loop, by file and name
    "backward": ("_tensor.py", "backward"),
    "gradients": ("steps.py", "_accumulate_gradients"),
    "optimiser": ("steps.py", "_update"),
    "epoch": ("loop.py", "train_epoch"),
    "evaluation": ("loop.py", "_accuracy"),
    "checkpoint": ("state.py", "save"),
}


class Shortened(Dataset):
    """The first steps of another dataset's epochs, and the first batches of its splits."""

    def __init__(self, dataset: Dataset, num_steps: int) -> None:
        self.info, self._dataset, self._num_steps = dataset.info, dataset, num_steps

    @staticmethod
    def check(recipe: Recipe) -> None:
        """The other dataset checks it."""

    def num_steps(self, recipe: Recipe) -> int:
        return min(self._num_steps, self._dataset.num_steps(recipe))

    def train_batches(self, recipe: Recipe, *, epoch: int, seed: int, device: torch.device) -> Iterator[Batch]:
        batches = self._dataset.train_batches(recipe, epoch=epoch, seed=seed, device=device)
        return itertools.islice(batches, self.num_steps(recipe))

    def eval_batches(self, split: Split, recipe: Recipe, *, device: torch.device) -> Iterator[Batch]:
        batches = self._dataset.eval_batches(split, recipe, device=device)
        return itertools.islice(batches, max(1, self._num_steps // 9))


def reports_of(lease: Lease, dataset: Dataset, device: torch.device) -> Iterator[Report]:
    """What a training reports after each epoch; its signs of life in between are passed over."""
    return (told for told in train(lease, dataset, device=device) if isinstance(told, Report))


def parts_of(profile: cProfile.Profile) -> dict[str, float]:
    """Seconds of each part."""
    found = dict.fromkeys(PARTS, 0.0)
    for (file, _, name), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]  # not in its types
        for part, (of_file, of_name) in PARTS.items():
            if name == of_name and Path(file).name == of_file:
                found[part] += cumulative
    gradients = found.pop("gradients")
    epoch = found.pop("epoch")
    return {
        "data": epoch - gradients - found["optimiser"],
        "forward": gradients - found["backward"],
        **found,
    }


def busy_seconds(profile: "torch.profiler.profile") -> float:
    """Seconds in which at least one kernel ran."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profile.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    total, reached = 0.0, 0.0
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total / 1e6


def on_cpu(lease: Lease, dataset: Dataset) -> str:
    """The row of a model: parts of its time in percent."""
    reports = reports_of(lease, dataset, torch.device("cpu"))
    next(reports)
    profile = cProfile.Profile()
    start = time.perf_counter()
    profile.enable()
    next(reports)
    profile.disable()
    seconds = time.perf_counter() - start
    parts = parts_of(profile)
    rate = dataset.num_steps(lease.recipe) * lease.recipe.batch_size / seconds
    training = sum(parts[name] for name in ("forward", "backward", "optimiser")) / seconds
    return f"{rate:,.0f} | {100 * training:.1f} | " + " | ".join(
        f"{100 * part / seconds:.1f}" for part in parts.values()
    )


def on_gpu(lease: Lease, dataset: Dataset, device: torch.device) -> str:
    """The row of a model: images per second of an epoch with evaluation, and the busy part of the GPU's time."""
    reports = reports_of(lease, dataset, device)
    next(reports)
    start = time.perf_counter()
    next(reports)
    seconds = time.perf_counter() - start
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        start = time.perf_counter()
        report = next(reports)
        profiled_seconds = time.perf_counter() - start
    rate = dataset.num_steps(lease.recipe) * lease.recipe.batch_size / seconds
    busy = busy_seconds(profile)
    note = f" | {report.note}" if report.note else ""
    return f"{rate:,.0f} | {100 * busy / profiled_seconds:.1f} | {100 * busy / seconds:.1f}{note}"


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Where the time of a trial goes.",
        epilog="examples:\n  python -m benchmarks.trial --data prepared:/fast/cifar10\n"
        "  python -m benchmarks.trial --data folder:/data/cifar10 --models convmixer_256_8_p2_k5 --workers 16",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, help="prepared:PATH, folder:PATH or another dataset")
    parser.add_argument(
        "--models", default="poolformer_s12,metaformer_ppaa_s12_224", help="hand-designed (default: %(default)s)"
    )
    parser.add_argument("--width-scale", type=float, help="of the models' widths (default: as in a search)")
    parser.add_argument("--recipe", help="a recipe's name (default: the dataset's)")
    parser.add_argument("--batch-size", type=int, help="default: the recipe's")
    parser.add_argument("--steps", type=int, default=10**9, help="of an epoch at most (default: all)")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode, where data are not prepared")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    return parser


def fitted(name: str, info: DataInfo, width_scale: float | None) -> Architecture:
    """A hand-designed model as a search on these data has it, or one of the zoo that has their resolution.

    Raises:
        UserError: It is neither.
    """
    settings = default_settings(info)
    if width_scale is not None:
        settings = settings.model_copy(update={"width_scale": width_scale})
    references = spaces.get("hybrid_stages", settings).references()
    if name in references:
        return references[name]
    arch = zoo.get(name)
    head = arch.head.model_copy(update={"num_classes": info.num_classes})
    return arch.model_copy(update={"head": head, "resolution": info.resolution})


def main(arguments: Sequence[str] | None = None) -> None:
    options = make_parser().parse_args(arguments)
    torch.set_num_threads(1)
    device = torch.device(options.device)
    resolution = look(options.data).resolution
    dataset: Dataset = open_dataset(options.data, resolution=resolution, num_workers=options.workers)
    recipe = find_recipe(options.recipe) if options.recipe else default_recipe(options.data)
    recipe = recipe.model_copy(update={"batch_size": options.batch_size or recipe.batch_size})
    dataset = Shortened(dataset, options.steps)
    print(machine(device))
    print(f"{options.data}, {resolution} pixels, {dataset.num_steps(recipe)} steps of {recipe.batch_size} images\n")
    columns = "img/s | train % | data | forward | backward | optimiser | evaluation | checkpoint"
    columns = "img/s | busy %, profiled | busy % of an epoch without" if device.type == "cuda" else columns
    print(f"| model | {columns} |\n| --- |" + " ---: |" * (columns.count("|") + 1))
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            lease = Lease(
                trial=0,
                architecture=fitted(name, dataset.info, options.width_scale),
                recipe=recipe,
                seed=0,
                epochs=3,
                folder=folder,
                attempt=1,
            )
            row = on_gpu(lease, dataset, device) if device.type == "cuda" else on_cpu(lease, dataset)
        print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
