"""A comparison on a console, and as plain values for a program."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from metaformer.errors import one_line
from nas.results.comparison.comparison import Comparison, Standing
from nas.results.results import percent
from nas.results.words import basis_text, interval_text, objective_titles, part_of, plural
from nas.study.budget import Budget, format_device_time

_MOST_OF_VALUE = 60  # characters of a setting in a line


def show(comparison: Comparison, console: Console) -> None:
    """Print the table of the runs, how their fronts stand to each other, and in what their settings differ."""
    console.print(runs_table(comparison))
    for line in (*standing_lines(comparison), *difference_lines(comparison), *basis_lines(comparison)):
        console.print(line)


def run_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The heads of the table of runs, and a row for each run."""
    rows: list[tuple[str, ...]] = [
        ("run", "trials", "spent", "best val", "true (90 %)", "hypervolume", "front", "joint")
    ]
    for place, results in enumerate(comparison.runs):
        budget, best = Budget.parse(results.run.study.budget), results.best
        rows.append(
            (
                comparison.names[place],
                f"{len(results.run.record.complete):,} of {len(results.trials):,}",
                format_device_time(results.spent_seconds, budget.device),
                percent(best.val_accuracy if best else None),
                interval_text(comparison.estimate(place, best) if best else None),
                f"{comparison.hypervolume(place):.4f}",
                f"{len(results.front):,}",
                f"{sum(member.run == place for member in comparison.front):,}",
            )
        )
    return rows


def runs_table(comparison: Comparison) -> Table:
    """A row for each run: `joint` are its members of the front that all runs have together."""
    heads, *rows = run_rows(comparison)
    table = Table(
        title=f"{plural(len(rows), 'run')}: {objective_titles(comparison.runs[0].run.study)}", title_justify="left"
    )
    for head in heads:
        table.add_column(head, justify="left" if head == "run" else "right")
    for row in rows:
        table.add_row(*row)
    return table


def standing_lines(comparison: Comparison) -> Iterator[str]:
    """For each two runs, both ways, a sentence that says dominated only where it is clear."""
    for standing in comparison.standings:
        yield _standing_text(comparison, standing)


def _standing_text(comparison: Comparison, standing: Standing) -> str:
    first, second = (comparison.names[place] for place in (standing.first, standing.second))
    members = plural(standing.num_members, "member")
    if not standing.num_members:
        return f"The front of {second} has no members yet."
    dominated, tied = len(standing.dominated), len(standing.tied)
    how = "on val" if comparison.uncertainty is None else "with p ≥ 0.90"
    text = f"Of {members} of the front of {second}, {part_of(dominated, standing.num_members)} "
    text += f"{'is' if dominated == 1 else 'are'} dominated by a model of {first} {how}"
    if tied:
        text += f", and of {tied} it is a toss-up"
    return f"{text}."


def difference_lines(comparison: Comparison) -> Iterator[str]:
    """A line for each setting in which the runs differ."""
    if not comparison.differences:
        yield "The settings are equal."
        return
    yield "Settings that differ:"
    for difference in comparison.differences:
        pairs = zip(comparison.names, difference.values, strict=True)
        said = "; ".join(f"{name} {value_text(value)}" for name, value in pairs)
        yield f"  {difference.field}: {said}"


def value_text(value: object) -> str:
    """A setting in a few words."""
    if value is None or value == []:
        return "–"
    text = ", ".join(str(part) for part in value) if isinstance(value, list) else str(value)
    return one_line(text, _MOST_OF_VALUE)


def basis_lines(comparison: Comparison) -> Iterator[str]:
    """On what the comparison rests, and what it cannot tell apart."""
    yield "Hypervolumes are in one scale: each cost from its least to its most in any of the runs."
    if comparison.uncertainty is None:
        yield "Nothing is known of the noise of val, so there are no intervals."
    else:
        yield basis_text(comparison.uncertainty)
    if any(difference.field.startswith("recipe.") for difference in comparison.differences):
        yield "The recipes differ: what one run has over another is due to its models and its recipe together."


def as_plain(comparison: Comparison) -> dict[str, object]:
    """All of it for a program; accuracies lie in [0, 1], times are device-seconds."""
    names = comparison.names
    return {
        "objectives": list(comparison.goals.names),
        "runs": [_run_as_plain(comparison, place) for place in range(len(names))],
        "joint_front": [
            {
                "run": names[member.run],
                "trial": member.trial.number,
                "val_accuracy": member.trial.val_accuracy,
                "p_on_front": member.estimate and member.estimate.p_on_front,
            }
            for member in comparison.front
        ],
        "standings": [
            {
                "models_of": names[standing.first],
                "front_of": names[standing.second],
                "members": standing.num_members,
                "dominated": [trial.number for trial in standing.dominated],
                "tied": [trial.number for trial in standing.tied],
            }
            for standing in comparison.standings
        ],
        "differences": {
            difference.field: dict(zip(names, difference.values, strict=True)) for difference in comparison.differences
        },
    }


def _run_as_plain(comparison: Comparison, place: int) -> dict[str, object]:
    results = comparison.runs[place]
    best = results.best
    estimate = comparison.estimate(place, best) if best else None
    return {
        "run": comparison.names[place],
        "folder": str(results.run.folder.path),
        "trials": results.counts,
        "spent_device_seconds": results.spent_seconds,
        "best": best and best.number,
        "val_accuracy": best and best.val_accuracy,
        "val_low": estimate and estimate.low,
        "val_high": estimate and estimate.high,
        "hypervolume": comparison.hypervolume(place),
        "front": [trial.number for trial in results.front],
        "progress": [{"device_seconds": x, "hypervolume": y} for x, y in comparison.progress(place)],
    }
