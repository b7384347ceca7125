"""Where a search stands, on a console: once, or refreshed in place until its driver has ended."""

import time
from collections.abc import Callable
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from metaformer.errors import as_line, printable
from nas.record.trials import TrialRecord
from nas.results.console import front_table, running_line
from nas.results.status.status import RunState, Status
from nas.results.words import duration_text, objective_titles, plural, recipe_text, splitting_text
from nas.study.budget import format_device_time
from nas.study.objectives import DEFAULT
from nas.study.study import StudyError

_COLOURS = {RunState.RUNNING: "green", RunState.ENDED: "", RunState.STOPPED: "yellow"}


def watch(read: Callable[[], Status], console: Console, *, seconds: float) -> Status:
    """Show a search again and again until no driver is at work; the last that was seen of it.

    A terminal shows it in one place, anything else one block after another. A study that a driver is just opening may
    for a moment be no file that can be read, so it is read once more before that is an error.

    Args:
        seconds: Between two looks.
    Raises:
        StudyError: It cannot be read.
    """
    status = read()
    with Live(console=console, auto_refresh=False) if console.is_terminal else _Blocks(console) as screen:
        screen.update(show(status, folds=console.is_terminal), refresh=True)
        while status.state is RunState.RUNNING:
            time.sleep(seconds)
            status = _read_twice(read, seconds)
            screen.update(show(status, folds=console.is_terminal), refresh=True)
    return status


def show(status: Status, *, folds: bool = False) -> RenderableType:
    """All that is to say, line by line; the first word is the state.

    Args:
        folds: Whether lines that are too long go on in the next, where a terminal would cut them off.
    """
    study = status.run.study
    epochs = study.recipe.epochs
    lines: list[RenderableType] = [
        Text(f"{status.state:8} {printable(_driver_text(status))}", style=_COLOURS[status.state]),
        _line("study", f"{study.space} on {study.data}, {_study_text(status)}"),
        _line("recipe", recipe_text(study.recipe)),
    ]
    if study.objectives != DEFAULT:
        lines.append(_line("goals", objective_titles(study)))
    lines += [
        _line("budget", _budget_text(status)),
        _line("rate", _rate_text(status)),
        _line("trials", _counts_text(status.counts)),
    ]
    lines += [_line("trial", _trial_text(trial, epochs)) for trial in status.running]
    lines += [_line("test", trial.reference or f"#{trial.number}") for trial in status.testing]
    if status.results.front:
        results = status.results
        lines.append(front_table(results.front, results.goals, results.uncertainty, space=results.run.space))
    lines += [_line("log", as_line(line)) for line in status.log]
    if folds:
        for line in lines:
            if isinstance(line, Text):
                line.no_wrap, line.overflow = False, "fold"
    return Group(*lines)


class _Blocks:
    """Prints each update under the one before."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> "_Blocks":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is to be undone."""

    def update(self, block: RenderableType, *, refresh: bool = False) -> None:
        """Print a block and an empty line."""
        del refresh
        self._console.print(block)
        self._console.print()
        self._console.file.flush()


def _read_twice(read: Callable[[], Status], seconds: float) -> Status:
    try:
        return read()
    except StudyError:
        time.sleep(seconds)
        return read()


def _line(title: str, text: str) -> Text:
    return Text(f"{title:8} {printable(text)}")


def _driver_text(status: Status) -> str:
    """Who is at work, or why nobody is."""
    driver, state = status.driver, status.state
    if driver is None:
        who = "its driver has ended" if status.results.trials else "no driver has begun a trial"
    else:
        who = str(driver.driver) + ("" if driver.is_alive else ", was killed")
        if driver.sign_at is not None:
            age = max(0.0, (status.at - driver.sign_at).total_seconds())
            who += f"; last sign of life {duration_text(age)} ago"
    if state is RunState.RUNNING:
        return who
    if state is RunState.STOPPED:
        return f"{who}; the same command goes on with what is left of the budget"
    why = "nothing more can be begun" if status.left else "the budget is spent, --extend adds to it"
    return f"{who}; {why}"


def _study_text(status: Status) -> str:
    study = status.run.study
    splits = splitting_text(study.splitting)
    size = study.settings.resolution
    most = "" if study.max_trials is None else f", at most {plural(study.max_trials, 'trial')}"
    until = "" if study.until == "budget" else f", until {study.until}"
    confirm = "" if study.confirm == "off" else f", confirm {study.confirm}"
    return (
        f"{size}x{size} pixels{f' ({splits})' if splits else ''}, sampler {study.sampler}, stopper {study.stopper}, "
        f"seed {study.seed}{most}{confirm}{until}"
    )


def _budget_text(status: Status) -> str:
    def spelled(seconds: float) -> str:
        return format_device_time(seconds, status.budget.device)

    text = f"{status.budget}: {spelled(status.results.spent_seconds)} spent"
    if status.run.study.finals is None and (confirming := status.run.record.confirm_seconds):
        text += f" ({spelled(confirming)} of it on new seeds)"
    lost = status.run.record.lost_seconds
    if lost:
        text += f" ({spelled(lost)} of it lost with drivers that were killed)"
    text += f", {spelled(status.reserved)} reserved, {spelled(status.left)} left"
    if status.unreported and status.state is not RunState.RUNNING:
        text += f"; {spelled(status.unreported)} more were used when the driver was killed"
    return text


def _rate_text(status: Status) -> str:
    rate = status.rate
    if rate is None:
        return "not known yet"
    text = (
        f"{rate.trials_per_hour:.3g} trials an hour, {rate.device_seconds_per_second:.3g} "
        f"{status.budget.device}-seconds a second, over {duration_text(rate.seconds)}"
    )
    end = status.expected_end
    if end is None:
        return text
    local: datetime = end.astimezone()
    away = duration_text((end - status.at).total_seconds())
    return f"{text}; so it ends in about {away}, {local:%a %d %b %H:%M}"


def _counts_text(counts: dict[str, int]) -> str:
    names = {"complete": "done"}
    shown = ("complete", "running", "stopped", "failed", "waiting")
    return ", ".join(f"{counts[name]:,} {names.get(name, name)}" for name in shown)


def _trial_text(trial: TrialRecord, epochs: int) -> str:
    attempt = f", attempt {len(trial.progress.leases)}"
    device = f", on {trial.progress.device}" if trial.progress.device else ""
    return f"{running_line(trial, epochs)}{attempt}{device}"
