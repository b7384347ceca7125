"""What a search prints: the plan before it runs, its progress while it runs, a summary after."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from metaformer.cli import console as plain
from metaformer.cost import count_cost
from metaformer.errors import printable
from nas.data import DataInfo, train_batch_size
from nas.record.run_folder import RunFolder
from nas.record.trials import TrialRecord, TrialState
from nas.results.results import block_text, mixers_text, percent, stem_stride
from nas.results.uncertainty import Uncertainty
from nas.results.words import (
    agreement_text,
    certainty_lines,
    duration_text,
    interval_text,
    objective_text,
    objective_titles,
    outlook_text,
    plural,
    prior_text,
    recipe_text,
    spent_text,
    splitting_text,
)
from nas.session.certainty.outlook import MORE
from nas.session.forecast import Forecast
from nas.session.proposers.earlier import agreement
from nas.session.session import Session
from nas.study.budget import Budget, format_device_time, parse_until
from nas.study.objectives import DEFAULT, Objectives
from nas.study.study import Study
from search_spaces.space import SearchSpace, Union

_PLAIN_SECONDS = 15  # between lines where there is no terminal
_FEW_STEPS = 100  # of the optimiser in a trial; the plan then says so
_FEW_TRIALS = 50  # a search can hardly learn from fewer; the plan then says what would buy more
_MOST_LEFT_OUT = 5  # models beyond the limits that are named where that is all of them


def make_console(*, as_json: bool) -> Console:
    """A console on stdout, or on stderr where a program reads stdout; it takes all text as plain."""
    return plain.make_console(stderr=as_json)


class ProgressView:
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
        """Print a line, unless there is a live panel or the last line is less than 15 seconds old."""
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= _PLAIN_SECONDS:
            self._last_line = now
            self._console.print(self._line())

    def _line(self) -> str:
        session = self._session
        counts = _counts(session)
        best = best_accuracy(session.front)
        return (
            f"spent {self._time(session.ledger.spent)}, reserved {self._time(session.ledger.reserved)}, "
            f"left {self._time(max(session.ledger.left, 0.0))} | {counts} | "
            f"best {'-' if best is None else f'{best:.2%}'} | front {len(session.front)} | "
            f"hypervolume {session.hypervolume:.4f}"
        )

    def _panel(self) -> RenderableType:
        session, ledger = self._session, self._session.ledger
        left = max(ledger.left, 0.0)
        table = Table.grid(padding=(0, 2))
        table.add_row("budget", ProgressBar(total=ledger.total, completed=min(ledger.spent, ledger.total), width=40))
        reserved = f"{self._time(ledger.reserved)} of it reserved"
        table.add_row("", f"{self._time(ledger.spent)} spent, {self._time(left)} left, {reserved}")
        table.add_row("trials", _counts(session))
        best = best_accuracy(session.front)
        table.add_row("best", "-" if best is None else f"{best:.2%} validation accuracy")
        table.add_row("front", f"{plural(len(session.front), 'architecture')}, hypervolume {session.hypervolume:.4f}")
        for trial in session.running:
            table.add_row("running", running_line(trial, session.study.recipe.epochs))
        if session.events:
            table.add_row("note", Text(printable(str(session.events[-1]))))
        note = Text("stopping: running trials end at their next report", style="yellow") if session.stopping else Text()
        return Group(table, note)

    def _time(self, seconds: float) -> str:
        return format_device_time(seconds, self._budget.device)


def _steps_of_a_trial(study: Study, info: DataInfo) -> int:
    num_images = info.num_images["train"]
    return study.recipe.epochs * (num_images // train_batch_size(study.recipe, num_images))


def print_plan(
    console: Console,
    session: Session,
    plan: Forecast,
    *,
    budget: Budget,
    info: DataInfo,
    why_resolution: str,
    recipe_source: str,
    devices_per_trial: float,
) -> None:
    """Say what is about to happen: space, data, budget, and what it buys.

    Args:
        why_resolution: A clause that says why models see images of that size.
        recipe_source: A clause that says where the recipe comes from, and what was asked for over it.
        devices_per_trial: Devices that a trial is charged for.
    """
    study, space = session.study, session.space
    images = ", ".join(f"{number:,} {split}" for split, number in info.num_images.items())
    splits = splitting_text(study.splitting)
    left = max(session.ledger.left, 0.0)
    wall = left / (session.place.num_workers * devices_per_trial)

    def spelled(seconds: float) -> str:
        return format_device_time(seconds, budget.device)

    console.print(
        f"{study.space} on {info.name}: {images} images{f' ({splits})' if splits else ''}, {info.num_classes} classes, "
        f"{info.resolution}x{info.resolution} pixels, {study.recipe.epochs} epochs a trial"
    )
    settings = study.settings
    console.print(f"images   {why_resolution}; {space.stem_text()}, widths times {settings.width_scale:g}")
    console.print(f"recipe   {recipe_source}: {recipe_text(study.recipe)}")
    if (num_steps := _steps_of_a_trial(study, info)) < _FEW_STEPS:
        text = f"steps    {num_steps} of the optimiser in a trial, which teach little; smaller batches give more"
        console.print(text, style="yellow")
    for line in _space_lines(study, space):
        console.print(line)
    if study.objectives != DEFAULT:
        console.print(f"goals    {objective_titles(study)}")
    console.print(
        f"budget   {budget}, {spelled(left)} left; {plural(session.place.num_workers, 'trial')} at a time"
        f"{_together(study, budget)}, "
        f"about {duration_text(wall)}, until {datetime.now() + timedelta(seconds=wall):%a %H:%M}"
    )
    if study.finals is not None:
        for line in _finals_lines(session, plan, spelled):
            console.print(line)
        return
    for line in _search_lines(session, plan, spelled):
        console.print(line)
    if left > 0:
        for line in advice(plan, left):
            console.print(f"         {line}", style="yellow")


def _space_lines(study: Study, space: SearchSpace) -> Iterator[str]:
    """What is searched, and from what the search starts; nothing of finals."""
    if study.finals is None:
        yield (
            f"space    {'' if space.size_is_exact else 'at most '}{_count(space.size)} architectures{_limits(space)}, "
            f"sampler {study.sampler}, seed {study.seed}"
        )
    if study.prior is not None:
        yield f"prior    {prior_text(study.prior)}"


def _together(study: Study, budget: Budget) -> str:
    """A clause about processes that train a model together, where they do."""
    if study.processes == 1:
        return ""
    kind = "GPUs" if budget.device == "gpu" else "processes"
    cores = f" with {study.cpus_per_trial} cores each" if (study.cpus_per_trial or 1) > 1 else ""
    share = study.recipe.batch_size // study.processes
    return f", {study.processes} {kind} a model{cores}, {share} images of a batch each"


def _search_lines(session: Session, plan: Forecast, spelled: Callable[[float], str]) -> list[str]:
    """What a search will train: how large, how fast, the hand-designed models first, then how many trials."""
    most, least = plan.images_per_second
    lines = [
        f"largest  {plan.most_params:,} parameters, {plan.most_macs:,} MACs, {spelled(plan.most_seconds)} to the end; "
        f"a mean one {spelled(plan.seconds_to_the_end)}",
        f"speed    trains on {most:,.0f} images a second with the smallest, {least:,.0f} with the largest; "
        f"up to {plan.peak_bytes / 2**20:,.0f} MiB a trial",
    ]
    waiting = len(session.queue.planned)
    if waiting:
        lines.append(f"first    {plural(waiting, 'hand-designed model')}, about {spelled(plan.reference_seconds)}")
    left_out = _left_out(session)
    if len(left_out) > _MOST_LEFT_OUT and len(left_out) == len(session.study.references):
        lines.append(f"         beyond the limits: all {len(left_out)} hand-designed models")
    elif left_out:
        lines.append(f"         beyond the limits: {', '.join(left_out)}")
    lines.append(f"then     about {plan.num_trials} trials of {spelled(plan.seconds_per_trial)} each{_by_rung(plan)}")
    promised = parse_until(session.study.until)
    if promised is not None:
        lines.append(
            f"until    the rest of the budget is expected to add less than {promised:.2%} of the hypervolume "
            f"(--until {session.study.until})"
        )
    if plan.confirm_seconds > 0:
        lines.append(
            f"last     {spelled(plan.confirm_seconds)}, {100 * session.confirmation.share:g} % of the budget, for new "
            f"seeds of trials whose place on the front is in doubt (--confirm {session.study.confirm})"
        )
    return lines


def _finals_lines(session: Session, plan: Forecast, spelled: Callable[[float], str]) -> list[str]:
    """What of the finals is trained already, what waits, and whether the budget pays for it."""
    finals = session.study.finals
    if finals is None:
        return []
    by_hand = sum(bool(model.references) for model in finals.models)
    waiting = session.queue.planned
    lines = [
        f"finals   {plural(len(finals.models), 'model')}, {by_hand} of them designed by hand, "
        f"{plural(len(finals.seeds), 'seed')}: {len(waiting)} of {len(finals.models) * len(finals.seeds)} trainings to "
        f"begin, about {spelled(plan.reference_seconds)}; up to {plan.peak_bytes / 2**20:,.0f} MiB each"
    ]
    if plan.reference_seconds > max(session.ledger.left, 0.0):
        lines.append("         the budget does not pay for all; each model is trained once before any a second time")
    return lines


def advice(plan: Forecast, left: float) -> list[str]:
    """What to change if the budget buys little; `left` of it is left, in device-seconds."""
    lines = []
    if plan.cheapest_seconds > left:
        lines.append("too little for a single full trial, even of the cheapest architecture; --epochs takes fewer")
    elif plan.seconds_to_the_end > left - plan.reference_seconds:
        lines.append("too little for a single full trial of mean size beside the hand-designed models")
    if plan.reference_seconds > left / 2:
        lines.append("the hand-designed models take more than half; --references takes fewer")
    if plan.num_trials < _FEW_TRIALS:
        lines.append(
            f"--max-macs {_rounded(plan.median_macs)}, the median, would buy {plan.times_as_many:.1f} times as many "
            "trials; half the --epochs twice as many"
        )
    return lines


def _by_rung(plan: Forecast) -> str:
    """How many of the trials reach each rung, as the end of a sentence; empty where none is stopped early."""
    if len(plan.rungs) == 1 or not plan.num_trials:
        return ""
    *early, last = plan.rungs
    parts = [f"{rung.num_trials} to epoch {rung.epochs}" for rung in early]
    return f": {', '.join(parts)}, {last.num_trials} to the end"


def _rounded(count: int) -> str:
    """A count as `--max-macs` takes it, to two or three digits."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def print_summary(console: Console, session: Session, folder: RunFolder, budget: Budget) -> None:
    """Say what came out, and what to type next."""
    num_val = (session.record.notes.num_images or session.place.num_images).get("val")
    uncertainty = Uncertainty.of(session.record.complete, session.objectives, num_val)
    console.print(front_table(session.front, session.objectives, uncertainty, space=session.space))
    for line in certainty_lines(uncertainty, session.front):
        console.print(line)
    found = sum(not trial.references for trial in session.front)
    console.print(
        f"{found} of the front were found, {len(session.front) - found} were designed by hand. {_counts(session)}."
    )
    baselines = session.record.notes.baselines
    if baselines:
        rows = (f"{name} {percent(val)} val, {percent(test)} test" for name, (val, test) in baselines.items())
        console.print(f"simple classifiers on the same pixels: {'; '.join(rows)}")
    ahead = session.outlook(MORE * budget.seconds)
    if ahead is not None:
        console.print(outlook_text(ahead, budget))
    if study_prior := session.study.prior:
        agrees = agreement(session.space, session.objectives, study_prior, session.record.complete)
        console.print(agreement_text(study_prior, agrees))
    console.print(f"spent {spent_text(session.ledger.spent, session.ledger.lost, budget)}")
    console.print(f"report   {folder.report_html}")
    run = folder.path
    commands = [f"nas.export {run} --pick knee --out arch.yaml", f"nas.finish {run} --budget {budget}"]
    for place, command in enumerate([*(commands if session.front else []), f"nas.dashboard {run}"]):
        console.print(f"{'' if place else 'next':8} python -m {command}", soft_wrap=True)
    if session.stopping or session.ledger.left > 0:
        console.print("         the same command goes on with what is left of the budget; --extend adds to it")
    else:
        console.print("         --extend, or a larger --budget, goes on")


def front_table(
    front: Sequence[TrialRecord], objectives: Objectives, uncertainty: Uncertainty | None, *, space: SearchSpace
) -> Table:
    """The front with what each member has and costs, a column for each measured objective.

    Args:
        space: More is shown where it has one stage behind patches, or is a union.
    """
    has_patches, union = not space.takes_stem, space if isinstance(space, Union) else None
    table = Table(title=f"Pareto front: {plural(len(front), 'architecture')}", title_justify="left")
    measured = objectives.measured
    patches = ("patch", "width", "blocks") if has_patches else ()
    family = ("family",) if union else ()
    head = ("trial", *family, "mixers", *patches, "depths", "val", "true (90 %)", "p front", "test", "params", "MACs")
    for column in (*head, *(goal.noun for goal in measured)):
        table.add_column(column, justify="left" if column in ("trial", "family", "mixers", "blocks") else "right")
    for trial in front:
        estimate = uncertainty.estimate(trial) if uncertainty else None
        arch = trial.architecture
        of_patches = (f"{stem_stride(arch)}", arch.stages[0].width_text, block_text(arch))
        table.add_row(
            trial.reference or f"#{trial.number}",
            *((union.family_of(arch),) if union else ()),
            mixers_text(arch),
            *(of_patches if has_patches else ()),
            "-".join(str(stage.depth) for stage in arch.stages),
            f"{trial.val_accuracy:.2%}",
            interval_text(estimate),
            f"{estimate.p_on_front:.2f}" if estimate else "–",
            "-" if trial.test_accuracy is None else f"{trial.test_accuracy:.2%}",
            f"{trial.params:,}",
            f"{trial.macs:,}",
            *(objective_text(objective, trial) for objective in measured),
        )
    return table


def best_accuracy(front: list[TrialRecord]) -> float | None:
    """The highest validation accuracy on a front, or None."""
    return max((trial.val_accuracy for trial in front if trial.val_accuracy is not None), default=None)


def _counts(session: Session) -> str:
    counts = Counter(trial.state for trial in list(session.record))
    running = len(session.running)
    parts = [f"{counts[TrialState.COMPLETE]} done", f"{running} running", f"{counts[TrialState.STOPPED]} stopped"]
    if counts[TrialState.FAILED]:
        parts.append(f"{counts[TrialState.FAILED]} failed")
    if session.queue.num_waiting:
        parts.append(f"{session.queue.num_waiting} waiting")
    return ", ".join(parts)


def running_line(trial: TrialRecord, epochs: int) -> str:
    """What a running trial is, how far it has come of its epochs, and how good it is so far."""
    accuracy = "" if trial.val_accuracy is None else f", {trial.val_accuracy:.2%}"
    done = f"{trial.num_epochs + trial.within:.1f}" if trial.within else f"{trial.num_epochs}"
    name = trial.reference or f"#{trial.number}"
    return f"{name}: {mixers_text(trial.architecture)}, epoch {done} of {epochs}{accuracy}"


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**6 else f"{number:.2g}"


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
