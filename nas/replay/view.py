"""Replays on a console, and as plain values for a program."""

from rich.console import Console
from rich.table import Table

from nas.replay.virtual import Found, Replays, Searched
from nas.results.results import percent
from nas.results.words import plural
from nas.study.budget import Budget, DeviceKind, format_device_time


def show(replays: Replays, console: Console) -> None:
    """Print what each search came to, how it got there, and how far that can be believed."""
    console.print(ends_table(replays))
    console.print(progress_table(replays))
    for line in basis_lines(replays):
        console.print(line)


def ends_table(replays: Replays) -> Table:
    """A row for each search: what it came to at its end."""
    table = Table(title=f"Replays of {replays.run.name}", title_justify="left")
    heads = ("search", "sampler", "stopper", "spent", "trials", "complete", "twice", "recorded", "best val", "volume")
    for head in heads:
        table.add_column(head, justify="left" if head in heads[:3] else "right")
    for search in replays.searches:
        end = search.progress[-1]
        table.add_row(
            search.name,
            search.sampler,
            search.stopper,
            format_device_time(end.device_seconds, _device(replays)),
            f"{search.num_trials:,}",
            f"{search.num_complete:,}",
            f"{search.num_duplicates:,}",
            f"{search.num_recorded:,}",
            percent(end.best_accuracy),
            f"{end.hypervolume:.4f}",
        )
    return table


def progress_table(replays: Replays) -> Table:
    """A row for each moment: hypervolume and best accuracy of each search; empty after its end."""
    table = Table(title="Hypervolume and best val by device time", title_justify="left")
    table.add_column("spent", justify="right")
    for search in replays.searches:
        table.add_column(search.name, justify="right")
    for seconds in replays.moments:
        found = [search.at(seconds) for search in replays.searches]
        table.add_row(format_device_time(seconds, _device(replays)), *(_text(each) for each in found))
    return table


def basis_lines(replays: Replays) -> list[str]:
    """What the replays rest on, and what they do not show."""
    curves = replays.curves
    stopped = f" and {curves.num_stopped:,} that were stopped" if curves.num_stopped else ""
    return [
        f"Curves: {plural(curves.num_complete, 'complete architecture')}{stopped}; others are predicted by a "
        f"random forest: mean error {replays.error_points:.2f} points on architectures left out, Kendall's tau "
        f"{replays.tau:.2f}.",
        "Not shown: accuracies above the best recorded, the noise of seeds, and differences below that error. A sampler"
        " that learns looks better than it is where it goes to what the forest wrongly takes for good.",
    ]


def as_plain(replays: Replays) -> dict[str, object]:
    """The replays as plain values; accuracies are parts of 1."""
    return {
        "run": replays.run.name,
        "num_complete": replays.curves.num_complete,
        "num_stopped": replays.curves.num_stopped,
        "error_points": replays.error_points,
        "tau": replays.tau,
        "searches": [_plain(search, replays.moments) for search in replays.searches],
    }


def _plain(search: Searched, moments: list[float]) -> dict[str, object]:
    return {
        **{name: value for name, value in search._asdict().items() if name != "progress"},
        "end": search.progress[-1]._asdict(),
        "progress": [
            {**found._asdict(), "device_seconds": seconds}
            for seconds in moments
            if (found := search.at(seconds)) is not None
        ],
    }


def _text(found: Found | None) -> str:
    return "" if found is None else f"{found.hypervolume:.4f}  {percent(found.best_accuracy)}"


def _device(replays: Replays) -> DeviceKind:
    return Budget.parse(replays.run.study.budget).device
