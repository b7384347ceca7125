"""Learning curves of random architectures, trained to full length by the project's own trainer, as a table.

Command:   python benchmarks/record_curves.py studies/curves/digits_hybrid_stages.csv
Hardware:  one CPU core for each process, no GPU
Time:      about 50 minutes of one core
Expected:  a row an architecture: its genes, its cost, processor seconds an epoch, validation accuracy after each epoch

The table is what `benchmarks/halving.py` replays. Architectures are drawn uniformly within the limits that a search
on the digits has; the cheapest ones and the hand-designed ones come first. What stands in the table is not trained
again, so a run that was cut short goes on. Seconds are the processor time of a process with one thread, start and
evaluation included, which other work on the machine does not lengthen much.
"""

import csv
import json
import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import track

from metaformer import Architecture, count_cost
from nas.data import open_dataset
from nas.study.lease import Lease
from nas.study.recipe import Recipe
from nas.study.study import Study
from nas.training.loop import train
from search_spaces.space import SearchSpace

STUDY = Path(__file__).parents[1] / "studies" / "digits_hybrid_stages.yaml"


def record(
    out: Annotated[Path, typer.Argument(help="CSV file; rows are added to one that exists.")],
    study: Annotated[Path, typer.Option(help="Study file: its space, data and recipe.")] = STUDY,
    number: Annotated[int, typer.Option(help="Architectures in all.")] = 168,
    epochs: Annotated[int, typer.Option(help="Epochs of each.")] = 16,
    processes: Annotated[int, typer.Option(help="Architectures at a time.")] = 1,
    seed: Annotated[int, typer.Option(help="Which random architectures, and of each training.")] = 0,
) -> None:
    """Train random architectures of a space and write their learning curves."""
    recorded = Study.from_file(study)
    data, resolution, fitted = recorded.data, recorded.settings.resolution, recorded.make_space()
    recipe = recorded.recipe.model_copy(update={"epochs": epochs})
    done = {row["digest"] for row in csv.DictReader(out.open(encoding="utf-8"))} if out.exists() else set()
    wanted = [arch for arch in _architectures(fitted, number, seed) if arch.digest not in done]
    out.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {
            pool.submit(_train, arch.model_dump_json(), recipe.model_dump_json(), data, resolution, seed): arch
            for arch in wanted
        }
        for future in track(as_completed(futures), total=len(futures), description="architectures"):
            arch = futures[future]
            seconds, curve = future.result()
            cost = count_cost(arch)
            row = {
                "digest": arch.digest,
                "params": cost.params,
                "macs": cost.macs,
                "epoch_seconds": f"{seconds:.3f}",
                "genes": json.dumps(fitted.encode(arch)),
                **{f"epoch_{i}": f"{accuracy:.4f}" for i, accuracy in enumerate(curve, start=1)},
            }
            with out.open("a", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(row))
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerow(row)


def _architectures(space: SearchSpace, number: int, seed: int) -> Iterator[Architecture]:
    """Different architectures: the cheapest two, the hand-designed ones within the limits, then random ones."""
    rng = random.Random(seed)
    seen: set[str] = set()
    limits = space.settings.limits
    first = [space.smallest("params"), space.smallest("macs"), *space.references().values()]
    queue = [arch for arch in first if limits.allow(count_cost(arch))]
    while len(seen) < number:
        arch = queue.pop(0) if queue else space.sample(rng)
        if arch.digest not in seen:
            seen.add(arch.digest)
            yield arch


def _train(arch: str, recipe: str, data: str, resolution: int, seed: int) -> tuple[float, list[float]]:
    """Processor seconds an epoch, and the validation accuracy after each."""
    torch.set_num_threads(1)
    dataset = open_dataset(data, resolution=resolution)
    parsed = Recipe.model_validate_json(recipe)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        lease = Lease(
            trial=0,
            attempt=1,
            architecture=Architecture.model_validate_json(arch),
            recipe=parsed,
            epochs=parsed.epochs,
            seed=seed,
            folder=folder,
        )
        curve = [report.val_accuracy for report in train(lease, dataset, device=torch.device("cpu"))]
    return (time.process_time() - start) / len(curve), curve


if __name__ == "__main__":
    typer.run(record)
