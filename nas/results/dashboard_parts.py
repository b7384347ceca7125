"""What Optuna's dashboard shows of a run beside its own rows: notes as Markdown, attributes, charts."""

import shlex
from collections.abc import Mapping
from typing import Any

from metaformer.errors import as_line
from nas.record.run_folder import Run
from nas.record.trials import TrialRecord
from nas.results.charts.figures import OTHERS, TEMPLATE, accuracy_faces, hover_text
from nas.results.page import facts_of, headline_of
from nas.results.picks import origin_lines
from nas.results.results import Results, mixers_text, percent, stage_mixers_text
from nas.results.words import markdown_line, objective_text, plural

_MOST_MEMBERS = 50  # of the front, in the note of a study


def study_note(results: Results, *, files: Mapping[str, str]) -> str:
    """What was searched, how and for how much, the front as a table, and how to export or repeat it.

    Args:
        files: Addresses of the run's files, by name.
    """
    run = results.run
    rows = "\n".join(f"| {markdown_line(title)} | {markdown_line(fact)} |" for title, fact in facts_of(results))
    again = ["nas.search", "--study", str(run.folder.study_file), "--name", f"{run.name}-again"]
    parts = [
        f"# {markdown_line(run.name)}",
        markdown_line(headline_of(results)),
        f"| | |\n| --- | --- |\n{rows}",
        *_front(results),
        "To run it again:",
        _command(*again),
    ]
    if files:
        links = (f"[{markdown_line(name)}]({address})" for name, address in files.items())
        parts.append(f"As they lie in the run's folder: {', '.join(links)}.")
    return "\n\n".join(parts)


def trial_note(run: Run, trial: TrialRecord) -> str:
    """The trial's origin and cost, its stages and its curve as tables, why it ended, and how to export it."""
    parts = ["\n\n".join(markdown_line(line) for line in origin_lines(run.name, trial)), _stages(trial)]
    if trial.reason:
        parts.append(f"Ended: {markdown_line(trial.reason)}")
    if trial.progress.curve:
        rows = [
            f"| {report.epoch} | {report.val_accuracy:.2%} | {report.train_loss:.4g} |"
            for report in trial.progress.curve
        ]
        parts.append("\n".join(["| epoch | validation accuracy | training loss |", "| ---: | ---: | ---: |", *rows]))
    parts.append(_command("nas.export", str(run.folder.path), "--pick", str(trial.number)))
    return "\n\n".join(parts)


def trial_attributes(trial: TrialRecord) -> Mapping[str, object]:
    """What the table of trials tells of one beside its values; without what there is not."""
    attributes = {
        "hand-designed": trial.reference,
        "mixers": mixers_text(trial.architecture, between=" · "),
        "epochs": trial.num_epochs,
        "device-s": round(trial.device_seconds, 1),
        "why it ended": trial.reason,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def front_figures(results: Results) -> Mapping[str, Any]:
    """Accuracy over each cost with the front and the hand-designed models, as plotly figures by name.

    They are sent anew at each look, so that the many trials off the front have short hover texts.
    """
    figures = {}
    shown = {trial.number: trial for trial in results.complete}
    for chart in accuracy_faces(results) if results.complete else []:
        figure = chart.figure
        figure.data = [trace for trace in figure.data if trace.meta != "selected"]
        for trace in figure.data:
            if trace.hoverinfo == "text" and trace.name == OTHERS:
                trace.hovertemplate = "trial %{customdata}<extra></extra>"
            elif trace.hoverinfo == "text":
                trace.hovertext = [hover_text(shown[number], results) for number in trace.customdata]
        figure.update_layout(
            template=TEMPLATE, height=None, showlegend=True, paper_bgcolor="white", plot_bgcolor="white"
        )
        figures[chart.name] = figure
    return figures


def _front(results: Results) -> list[str]:
    """The members of the front as a table, by rising parameters."""
    if not results.front:
        return []
    goals = results.goals
    heads = ["trial", "mixers", *(goal.noun for goal in goals), "test"]
    rows = [
        [
            f"{trial.number}" + (f": {trial.reference}" if trial.references else ""),
            mixers_text(trial.architecture, between=" · "),
            *(objective_text(goal, trial) for goal in goals),
            percent(trial.test_accuracy),
        ]
        for trial in results.front[:_MOST_MEMBERS]
    ]
    lines = [heads, ["---"] * len(heads), *([markdown_line(cell) for cell in row] for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    more = len(results.front) - len(rows)
    export = _command("nas.export", str(results.run.folder.path), "--pick", "knee")
    return [
        "## The front",
        table,
        *([f"And {plural(more, 'more member')}, in front.csv."] if more else []),
        "To write the balanced member of the front, or another by its number:",
        export,
    ]


def _stages(trial: TrialRecord) -> str:
    stages = trial.architecture.stages
    rows = [
        f"| {number} | {stage.depth} | {markdown_line(stage_mixers_text(stage))} | {stage.width_text} |"
        for number, stage in enumerate(stages, 1)
    ]
    return "\n".join(["| stage | blocks | token mixer | width |", "| ---: | ---: | --- | ---: |", *rows])


def _command(program: str, *arguments: str) -> str:
    """A command as a block of code, in one line."""
    return "    " + as_line(shlex.join(["python", "-m", program, *arguments]))
