"""What is said of one trial beside its values, as Markdown."""

import shlex

from nas.record.run_folder import Run
from nas.record.trials import TrialRecord
from nas.results.picks import origin_lines
from nas.results.results import mixer_text
from nas.results.words import markdown_line


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
    command = shlex.join(["python", "-m", "nas.export", str(run.folder.path.resolve()), "--pick", str(trial.number)])
    parts.append(f"    {command}")
    return "\n\n".join(parts)


def _stages(trial: TrialRecord) -> str:
    stages = trial.architecture.stages
    rows = [
        f"| {number} | {stage.depth} | {markdown_line(mixer_text(stage.mixer))} | {stage.width} |"
        for number, stage in enumerate(stages, 1)
    ]
    return "\n".join(["| stage | blocks | token mixer | width |", "| ---: | ---: | --- | ---: |", *rows])
