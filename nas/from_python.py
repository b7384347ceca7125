"""Runs from Python and notebooks: what one has found as values, and a search that goes on until its budget is spent."""

import inspect
from collections.abc import Callable
from functools import cached_property
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ParamSpec, cast, get_type_hints

import pandas as pd

from metaformer.cli import call
from metaformer.errors import CheckpointError, UserError, check_type, shown, unknown_name
from nas import cli
from nas.record import run_folder
from nas.results.picks import kept_weights, pick_trial
from nas.results.results import Results, percent
from nas.results.tables.frames import curve_frame, front_frame, trial_frame
from nas.results.words import plural, spent_text
from nas.search import search
from nas.study.budget import Budget
from nas.study.lease import WEIGHTS

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go
    from torch import nn

_Options = ParamSpec("_Options")


class OpenedRun:
    """A run as it stands when it is first looked at; `open_run` again sees what a search has written since.

    Attributes:
        folder: Where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def results(self) -> Results:
        """All that there is to say about it, as the report's values.

        Raises:
            StudyError: There is no run in the folder, or it cannot be read.
        """
        run = run_folder.open_run(self.folder)
        run.record.close()
        return Results(run)

    @property
    def name(self) -> str:
        """That of its folder."""
        return self.folder.resolve().name

    @cached_property
    def front(self) -> pd.DataFrame:
        """One row for each member of the front, by rising parameters, as in `front.csv`."""
        return front_frame(self.results)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row for each trial, as in `trials.csv`."""
        return trial_frame(self.results, self.results.trials)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row for each epoch of each trial, as in `curves.csv`."""
        return curve_frame(self.results.trials)

    @cached_property
    def study(self) -> "optuna.Study":
        """The Optuna study; nothing can be written to it.

        Raises:
            StudyError: It cannot be opened.
        """
        return self.results.run.record.open_study()

    def figure(self, name: str = "front") -> "go.Figure":
        """One chart of the report as a plotly figure.

        Args:
            name: `front`, `tiles` and `shares` of the mixers, `curves`, or two objectives, such as `params-accuracy`.
        Raises:
            UserError: There is no such chart, or no trial is complete.
        """
        from nas.results.charts.gallery import figure_of

        return figure_of(self.results, name)

    def model(self, trial: int | str = "knee") -> "nn.Module":
        """The network of a trial with its trained weights, on the CPU, to be evaluated.

        Args:
            trial: Its number, `best` or `knee`.
        Raises:
            UserError: There is no such trial, or its weights were not kept or cannot be read.
        """
        from metaformer import load

        run = self.results.run
        picked = pick_trial(run, str(trial))
        with kept_weights(run, picked) as checkpoints, TemporaryDirectory() as folder:
            copy = Path(folder) / WEIGHTS
            checkpoints.copy(WEIGHTS, copy)
            try:
                model = load(picked.architecture, copy)
            except CheckpointError as error:
                said = str(error).replace(str(copy), checkpoints.where(WEIGHTS))
                raise UserError(f"weights: must be those of trial {picked.number}, got {said}") from None
        return model.eval()

    def __repr__(self) -> str:
        said = ", ".join(f"{title.lower()} {text}" for title, text in self._facts())
        return f"<run {self.name!r}: {said}>"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(title)}</th><td>{escape(text)}</td></tr>" for title, text in self._facts())
        return f"<table><caption>run {escape(self.name)}</caption>{rows}</table>"

    def _facts(self) -> list[tuple[str, str]]:
        """What it is, and how far it has come."""
        if not (self.folder / "study.yaml").exists():
            return [("State", "not begun")]
        results = self.results
        study, record = results.run.study, results.run.record
        best = "none yet" if results.best is None else f"{percent(results.best.val_accuracy)} on val"
        return [
            ("Space", study.space),
            ("Data", study.data),
            ("Spent", spent_text(results.spent_seconds, record.lost_seconds, Budget.parse(study.budget))),
            ("Trials", f"{len(results.trials):,}, {len(record.complete):,} of them complete"),
            ("Front", plural(len(results.front), "architecture")),
            ("Best", best),
        ]


def open_run(run: str | Path) -> OpenedRun:
    """A run that a search has made, also while it goes on.

    Args:
        run: Its folder, or its name under `runs/`.
    Raises:
        StudyError: There is no run, or it cannot be read.
    """
    check_type(run, (str, Path), "run: must be the path of a folder, or a name", error=UserError)
    opened = OpenedRun(cli.run_path(str(run)))
    opened.results  # noqa: B018  read now, so that an error comes now
    return opened


def _with_options_of(
    program: Callable[_Options, Path],
) -> Callable[[Callable[..., OpenedRun]], Callable[_Options, OpenedRun]]:
    """Give a function the options of a program as its keywords, for type checkers, `help` and completion."""

    def decorate(function: Callable[..., OpenedRun]) -> Callable[_Options, OpenedRun]:
        kinds = get_type_hints(program)
        options = [
            option.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kinds[option.name])
            for option in inspect.signature(program).parameters.values()
        ]
        function.__signature__ = inspect.Signature(options, return_annotation=OpenedRun)  # type: ignore[attr-defined]
        return cast(Callable[_Options, OpenedRun], function)

    return decorate


@_with_options_of(search)
def run_search(*stray: object, **options: object) -> OpenedRun:
    """The run, after a search was begun, or gone on with, as `python -m nas.search` does it.

    Keyword arguments are that program's options: `max_macs="1.9G"` is `--max-macs 1.9G`, `set=["recipe.epochs=9"]` is
    `--set recipe.epochs=9`; `python -m nas.search --help` explains them. With `plan=True` it says what the budget buys,
    and the run stays as it was.

    Raises:
        UserError: What the program would answer by one line and exit code 2.
    """
    if stray:
        raise UserError(f"arguments: must be given by name, such as space='hybrid_stages', got {shown(stray[0])}")
    opened = OpenedRun(call(search, _arguments(options)))
    if not options.get("plan"):
        opened.results  # noqa: B018  as in `open_run`
    return opened


def _arguments(options: dict[str, object]) -> list[str]:
    """Options of a search as they are typed.

    Raises:
        UserError: There is no such option, or it takes no such value.
    """
    kinds = get_type_hints(search)
    del kinds["return"]
    typed = []
    for name, value in options.items():
        if name not in kinds:
            raise UserError(unknown_name("option", name, kinds))
        flag = "--" + name.replace("_", "-")
        if value is None or (kinds[name] is bool and value is False):
            continue
        if kinds[name] is bool and value is True:
            typed.append(flag)
            continue
        takes_many = kinds[name] == list[str] | None
        for one in value if takes_many and isinstance(value, list | tuple) else [value]:
            check_type(one, (str, int, float, Path), f"{name}: must be a text or a number", error=UserError)
            typed.append(f"{flag}={one}")
    return typed
