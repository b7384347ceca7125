"""What a search tells while it runs: the plan before, live progress, a summary after."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from metaformer.cost import count_cost
from nas.budget import Budget, format_device_time
from nas.data import DataInfo
from nas.plan import Plan
from nas.record import TrialRecord, TrialState
from nas.run import RunFolder
from nas.session import Session
from nas.tables import mixer_text
from search_spaces.space import SearchSpace

_PLAIN_SECONDS = 15  # between lines where there is no terminal
_PLAIN_WIDTH = 132  # characters of a line there


def make_console(*, as_json: bool) -> Console:
    """Where people read: stdout, or stderr where a program reads stdout; wide enough for the tables in a file."""
    console = Console(stderr=as_json, soft_wrap=True)
    return console if console.is_terminal else Console(stderr=as_json, soft_wrap=True, width=_PLAIN_WIDTH)


class Progress:
    """Shows a session on a console: a live panel in a terminal, a line now and then elsewhere."""

    def __init__(self, session: Session, budget: Budget, console: Console) -> None:
        self._session = session
        self._budget = budget
        self._console = console
        self._last_line = 0.0

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the session until the block ends."""
        if not self._console.is_terminal:
            yield
            return
        with Live(get_renderable=self._panel, console=self._console, refresh_per_second=2, transient=True):
            yield

    def on_event(self) -> None:
        """Print a line where nothing is shown live and the last line is some time ago."""
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= _PLAIN_SECONDS:
            self._last_line = now
            self._console.print(self._line())

    def _line(self) -> str:
        session = self._session
        counts = _counts(session)
        best = best_accuracy(session.front)
        return (
            f"spent {self._time(session.ledger.spent)} of {self._time(session.ledger.total)} | {counts} | "
            f"best {'-' if best is None else f'{best:.2%}'} | front {len(session.front)} | "
            f"hypervolume {session.hypervolume:.4f}"
        )

    def _panel(self) -> RenderableType:
        session, ledger = self._session, self._session.ledger
        left = max(ledger.left, 0.0)
        table = Table.grid(padding=(0, 2))
        table.add_row("budget", ProgressBar(total=ledger.total, completed=min(ledger.spent, ledger.total), width=40))
        reserved = f", {self._time(ledger.reserved)} of it reserved" if ledger.reserved else ""
        table.add_row("", f"{self._time(ledger.spent)} spent, {self._time(left)} left{reserved}")
        table.add_row("trials", _counts(session))
        best = best_accuracy(session.front)
        table.add_row("best", "-" if best is None else f"{best:.2%} validation accuracy")
        table.add_row("front", f"{_plural(len(session.front), 'architecture')}, hypervolume {session.hypervolume:.4f}")
        for trial in session.running:
            table.add_row("running", _running_line(trial, session.study.recipe.epochs))
        note = Text("stopping: running trials end at their next report", style="yellow") if session.stopping else Text()
        return Group(table, note)

    def _time(self, seconds: float) -> str:
        return format_device_time(seconds, self._budget.device)


def print_plan(
    console: Console, session: Session, plan: Plan, *, budget: Budget, info: DataInfo, devices_per_trial: int
) -> None:
    """Say what is about to happen: space, data, budget, and what it buys."""
    study, space = session.study, session.space
    images = ", ".join(f"{number:,} {split}" for split, number in info.num_images.items())
    left = max(session.ledger.left, 0.0)
    wall = left / (session.num_workers * devices_per_trial)
    console.print(
        f"[bold]{study.space}[/] on [bold]{info.name}[/]: {images} images, {info.num_classes} classes, "
        f"{info.resolution}x{info.resolution} pixels, {study.recipe.epochs} epochs a trial"
    )
    console.print(
        f"space    {space.size:.2g} architectures{_limits(space)}, sampler {study.sampler}, seed {study.seed}"
    )
    console.print(
        f"budget   {budget}, {format_device_time(left, budget.device)} left; "
        f"{_plural(session.num_workers, 'trial')} at a time, about {_duration(wall)}"
    )
    if session.references:
        console.print(
            f"first    {_plural(len(session.references), 'hand-designed model')}, about "
            f"{format_device_time(plan.reference_seconds, budget.device)}"
        )
    left_out = _left_out(session)
    if left_out:
        console.print(f"         beyond the limits: {', '.join(left_out)}")
    console.print(
        f"then     about {plan.num_trials} trials of {format_device_time(plan.seconds_per_trial, budget.device)} each"
    )
    if plan.reference_seconds > left / 2:
        console.print("[yellow]         the hand-designed models take more than half; --references takes fewer[/]")
    if plan.num_trials < 1 and left > 0:
        console.print(
            "[yellow]         too little for a trial of mean size; --max-macs or --epochs make trials cheaper[/]"
        )


def print_summary(console: Console, session: Session, folder: RunFolder, budget: Budget) -> None:
    """Say what came out, and what to type next."""
    table = Table(title=f"Pareto front: {_plural(len(session.front), 'architecture')}", title_justify="left")
    for column in ("trial", "mixers", "depths", "val", "test", "params", "MACs"):
        table.add_column(column, justify="left" if column in ("trial", "mixers") else "right")
    for trial in session.front:
        arch = trial.architecture
        table.add_row(
            trial.reference or f"#{trial.number}",
            " ".join(mixer_text(stage.mixer) for stage in arch.stages),
            "-".join(str(stage.depth) for stage in arch.stages),
            f"{trial.val_accuracy:.2%}",
            "-" if trial.test_accuracy is None else f"{trial.test_accuracy:.2%}",
            f"{trial.params:,}",
            f"{trial.macs:,}",
        )
    console.print(table)
    found = sum(trial.reference is None for trial in session.front)
    console.print(
        f"{found} of the front were found, {len(session.front) - found} were designed by hand. {_counts(session)}."
    )
    console.print(f"spent {format_device_time(session.ledger.spent, budget.device)} of {budget}")
    console.print(f"report   {folder.report_html}")
    run = folder.path
    console.print(f"next     python -m nas.export {run} --pick knee --out arch.yaml", soft_wrap=True)
    console.print(f"         python -m nas.dashboard {run}", soft_wrap=True)
    if session.stopping or session.ledger.left > 0:
        console.print("         the same command goes on with what is left of the budget; a larger --budget extends it")
    else:
        console.print("         the same command with a larger --budget goes on")


def best_accuracy(front: list[TrialRecord]) -> float | None:
    """The highest validation accuracy on a front, or None."""
    return max((trial.val_accuracy for trial in front if trial.val_accuracy is not None), default=None)


def _counts(session: Session) -> str:
    counts = Counter(trial.state for trial in list(session.record))
    running = len(session.running)
    parts = [f"{counts[TrialState.COMPLETE]} done", f"{running} running", f"{counts[TrialState.STOPPED]} stopped"]
    if counts[TrialState.FAILED]:
        parts.append(f"{counts[TrialState.FAILED]} failed")
    if session.num_waiting:
        parts.append(f"{session.num_waiting} waiting")
    return ", ".join(parts)


def _running_line(trial: TrialRecord, epochs: int) -> str:
    accuracy = "" if trial.val_accuracy is None else f", {trial.val_accuracy:.2%}"
    mixers = " ".join(mixer_text(stage.mixer) for stage in trial.architecture.stages)
    return f"{trial.reference or f'#{trial.number}'}: {mixers}, epoch {trial.num_epochs} of {epochs}{accuracy}"


def _limits(space: SearchSpace) -> str:
    limits = space.settings.limits
    parts = []
    if limits.max_params is not None:
        parts.append(f"{limits.max_params:,} parameters")
    if limits.max_macs is not None:
        parts.append(f"{limits.max_macs:,} MACs")
    return f", up to {' and '.join(parts)}" if parts else ""


def _left_out(session: Session) -> list[str]:
    limits, known = session.space.settings.limits, session.space.references()
    return [name for name in session.study.references if not limits.allow(count_cost(known[name]))]


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
