"""A model card: what a model is, what it costs, how accurate it is and on what, and how it came to be."""

import json
from collections.abc import Iterable

from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from metaformer.errors import printable
from nas.results.exports.subject import Subject
from nas.results.finish.finals import Spread
from nas.results.results import Results, block_text, percent, stage_mixers_text
from nas.results.words import (
    interval_text,
    markdown_line,
    objective_text,
    recipe_text,
    splitting_text,
    wilson_interval,
)
from nas.study.objectives.units import short_count

_LEVEL = 0.95


def card_text(subject: Subject) -> str:
    """The card in Markdown, below the header that model hubs read."""
    trial, study = subject.trial, subject.run.study
    title = f"Trial {trial.number} of {subject.run.name}"
    origin = f"hand-designed ({trial.reference})" if trial.reference else "found by the search"
    splits = splitting_text(study.splitting)
    sections = [
        (
            "Model",
            [
                ("Stages", _stages(trial.architecture)),
                ("Blocks", block_text(trial.architecture)),
                ("Digest", trial.architecture.digest),
                ("Origin", origin),
                ("State", f"{trial.state}, {trial.num_epochs} epochs"),
            ],
        ),
        ("Costs", list(_costs(subject))),
        ("Accuracy", list(_accuracies(subject))),
        (
            "Training",
            [
                ("Data", study.data + (f" ({splits})" if splits else "")),
                ("Data fingerprint", study.data_fingerprint),
                ("Recipe", recipe_text(study.recipe)),
                ("Seed", str(study.seed if trial.seed is None else trial.seed)),
                ("Search", f"{study.space}, {study.sampler}"),
            ],
        ),
        ("Input", list(_inputs(subject))),
        (
            "Licence",
            [
                ("Program", "MIT, metaformer-nas"),
                ("Weights", "not stated; who publishes them states it, and the terms of the data hold"),
            ],
        ),
    ]
    tables = "\n".join(f"## {heading}\n\n{_table(rows)}" for heading, rows in sections)
    header = "---\nlibrary_name: timm\npipeline_tag: image-classification\ntags:\n- image-classification\n- timm\n---\n"
    command = printable(subject.command).replace("\n", "\\n")
    return f"{header}# {markdown_line(title)}\n\n{tables}\n## Command\n\n```\n{command}\n```\n"


def _stages(arch: Architecture) -> str:
    """Blocks, mixer and width of each stage: `2 × pool 3 at width 64, …`."""
    return ", ".join(f"{stage.depth} × {stage_mixers_text(stage)} at width {stage.width_text}" for stage in arch.stages)


def _costs(subject: Subject) -> Iterable[tuple[str, str]]:
    trial = subject.trial
    frozen = count_cost(trial.architecture).frozen_params
    yield "Parameters", f"{trial.params:,}" + (f", and {frozen:,} that are never trained" if frozen else "")
    yield "MACs", f"{trial.macs:,} ({short_count(trial.macs)}) per image of {trial.architecture.resolution} pixels"
    for goal in subject.run.study.goals.measured:
        yield goal.noun, f"{objective_text(goal, trial)} on {trial.progress.device}"


def _accuracies(subject: Subject) -> Iterable[tuple[str, str]]:
    """Each with its split; a model that was chosen by val is a little better there than elsewhere."""
    trial, results = subject.trial, Results(subject.run)
    sizes = results.notes.num_images or {}
    yield (
        "On val, by which it was chosen",
        percent(trial.val_accuracy) + _sampling(trial.val_accuracy, sizes.get("val")),
    )
    yield "On test", percent(trial.test_accuracy) + _sampling(trial.test_accuracy, sizes.get("test"))
    estimate = results.estimate(trial)
    if estimate is not None:
        yield "Of the architecture, over seeds and images", f"{interval_text(estimate)} (90 % interval)"
    yield "Trainings", _trainings(subject)


def _trainings(subject: Subject) -> str:
    """How often the architecture was trained, and what its trainings reached."""
    record, digest = subject.run.record, subject.trial.architecture.digest
    trials = [trial for trial in record.complete if trial.architecture.digest == digest]
    if len(trials) < 2:
        return "one, with one seed"
    spreads = (
        Spread.of([trial.val_accuracy for trial in trials if trial.val_accuracy is not None]),
        Spread.of([trial.test_accuracy for trial in trials if trial.test_accuracy is not None]),
    )
    said = [f"{spread} on {split}" for split, spread in zip(("val", "test"), spreads, strict=True) if spread]
    return f"{len(trials)} with seeds of their own, these weights are of one: {', '.join(said)} (mean ± deviation)"


def _sampling(accuracy: float | None, num_images: int | None) -> str:
    """Wilson's interval of an accuracy on so many images, as a clause."""
    if accuracy is None or not num_images:
        return ""
    low, high = (f"{100 * end:.1f}" for end in wilson_interval(accuracy, num_images, level=_LEVEL))
    return f" of {num_images:,} images ({low} to {high} %, {100 * _LEVEL:.0f} % interval)"


def _inputs(subject: Subject) -> Iterable[tuple[str, str]]:
    arch = subject.trial.architecture
    yield (
        "Size",
        f"{arch.stem.in_channels} × {arch.resolution} × {arch.resolution}"
        + (", and no other" if arch.fixes_resolution else ""),
    )
    if subject.images is None:
        yield "Normalisation and classes", f"cannot be told here: {subject.why_no_images}"
        return
    how = subject.images.preprocessing
    yield "Mean and deviation", f"{how.mean} and {how.std}, of values from 0 to 1"
    yield "Resizing", f"{how.interpolation}, of which the middle {100 * how.crop_pct:g} % is kept"
    yield "Classes", json.dumps(subject.images.class_names, ensure_ascii=False)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"| {markdown_line(name)} | {markdown_line(value)} |\n" for name, value in rows)
    return f"| | |\n| --- | --- |\n{lines}"
