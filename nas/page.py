"""The report as one HTML page that needs nothing else: charts, tables, and what they say in words."""

import json
import shlex
from collections import Counter
from importlib.resources import files

import plotly
from jinja2 import Environment, StrictUndefined
from plotly.offline import get_plotlyjs

from nas.budget import Budget, format_device_time
from nas.figures import ACCURACY, MACS, PARAMS, face, hover_text, learning_curves, scatter_3d
from nas.mixer_figures import mixer_colours, mixer_shares, mixer_tiles
from nas.pareto import knee
from nas.record import TrialRecord, TrialState
from nas.tables import (
    Results,
    difference,
    differs_from_paper,
    mixer_counts,
    mixer_text,
    percent,
    short_count,
)

_MOST_DOMINATORS = 3  # found models spelled out for each hand-designed one; the others are listed by number


def render(results: Results) -> str:
    """The page as text."""
    source = files("nas").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "count": short_count, "mixer": mixer_text, "shell": shlex.quote}
    study = results.run.study
    charts = _charts(results)
    return environment.from_string(source).render(
        results=results,
        run=results.run,
        study=study,
        headline=_headline(results),
        facts=_facts(results),
        knee=_knee(results),
        differs=differs_from_paper(study),
        step=_accuracy_step(results),
        winners=_winners(results),
        colours=mixer_colours(results.trials),
        stopped=Counter(trial.reason for trial in results.trials if trial.state is TrialState.STOPPED).most_common(),
        failed=[trial for trial in results.trials if trial.state is TrialState.FAILED],
        difference=difference,
        most_dominators=_MOST_DOMINATORS,
        tested=any(trial.test_accuracy is not None for trial in results.front),
        charts="{" + ",".join(f'"{name}":{figure}' for name, figure in charts.items()) + "}",
        texts=_script_json({"others": [hover_text(trial) for trial in results.others]}),
        plotly_js=get_plotlyjs() if charts else "",
        plotly_version=plotly.__version__,
    )


def _charts(results: Results) -> dict[str, str]:
    """Each chart as JSON, by the name of its place in the page; none where no trial is complete."""
    if not results.complete:
        return {}
    figures = {
        "space": scatter_3d(results),
        "params": face(results, PARAMS, ACCURACY, size=(410, 380)),
        "macs": face(results, MACS, ACCURACY, size=(410, 380)),
        "costs": face(results, PARAMS, MACS, size=(940, 340)),
        "tiles": mixer_tiles(results),
        "shares": mixer_shares(results),
        "curves": learning_curves(results),
    }
    return {name: _in_script(figure.to_json()) for name, figure in figures.items()}


def _script_json(value: object) -> str:
    return _in_script(json.dumps(value))


def _in_script(text: str) -> str:
    """JSON that nothing in it can end the script around it."""
    return text.replace("<", "\\u003c")


def _headline(results: Results) -> str:
    """The answer in one or two sentences."""
    if not results.complete:
        return f"No trial is complete yet, so there is no front to show (trials: {_trials(results)})."
    front = results.front
    found = sum(trial.reference is None for trial in front)
    best = max(results.complete, key=lambda trial: (trial.objectives[0], -trial.macs, -trial.params))
    text = (
        f"{_plural(len(front), 'architecture')} on the front, {_of(found, len(front))} found by the search. "
        f"Best validation accuracy {percent(best.val_accuracy)} by trial {best.number} "
        f"({short_count(best.params)} parameters, {short_count(best.macs)} MACs)."
    )
    trained = [reference for reference in results.references if reference.trial in results.trained_references]
    if trained:
        beaten = sum(bool(reference.dominated_by) for reference in trained)
        verb = "is" if beaten == 1 else "are"
        models = _plural(len(trained), "hand-designed model")
        text += f" Of {models}, {_of(beaten, len(trained))} {verb} dominated by a found one."
    return text


def _facts(results: Results) -> list[tuple[str, str]]:
    """What was searched, how, and for how much."""
    study, space = results.run.study, results.run.space
    recipe, settings, budget = study.recipe, study.settings, Budget.parse(study.budget)
    limits = {"parameters": settings.limits.max_params, "MACs": settings.limits.max_macs}
    limited = "".join(f", at most {short_count(limit)} {what}" for what, limit in limits.items() if limit)
    spent = format_device_time(results.spent_seconds, budget.device)
    return [
        ("Space", f"{study.space}: {_power(space.size)} architectures{limited}"),
        ("Data", f"{study.data}, {settings.num_classes} classes, {settings.resolution} × {settings.resolution} pixels"),
        (
            "Recipe",
            f"{recipe.epochs} epochs of AdamW, batch {recipe.batch_size}, peak learning rate {recipe.peak_lr:.3g}, "
            f"{_plural(recipe.warmup_epochs, 'warm-up epoch')}, weight decay {recipe.weight_decay:g}, "
            f"precision {recipe.precision}",
        ),
        ("Budget", f"{spent} of {budget} spent ({100 * results.spent_seconds / budget.seconds:.0f} %)"),
        ("Trials", _trials(results)),
        ("Search", f"{study.sampler}, seed {study.seed}"),
        ("Hypervolume", f"{results.hypervolume:.4f} of the unit cube (error; costs on a log scale over the space)"),
    ]


def _knee(results: Results) -> TrialRecord | None:
    if not results.front:
        return None
    return results.front[knee([trial.objectives for trial in results.front])]


def _accuracy_step(results: Results) -> str:
    """How finely validation accuracy can tell models apart, in percentage points; empty where it is not known."""
    if not results.num_val or not results.complete:
        return ""
    right = max(trial.objectives[0] for trial in results.complete) * results.num_val
    share = (right + 2) / (results.num_val + 4)  # Agresti and Coull's, so that 100 % has an error too
    error = 100 * (share * (1 - share) / results.num_val) ** 0.5
    return (
        f"Validation has {results.num_val:,} images: accuracy moves in steps of {100 / results.num_val:.2g} points, "
        f"and the standard error of the best one is about {error:.2g} points."
    )


def _winners(results: Results) -> list[str]:
    """For each stage the mixer that the front has most often, beside how often the search tried it."""
    sentences = []
    for i, (front, tried) in enumerate(zip(mixer_counts(results.front), mixer_counts(results.trials), strict=False)):
        kind, number = front.most_common(1)[0]
        shares = (100 * number / front.total(), 100 * tried[kind] / tried.total())
        sentences.append(
            f"Stage {i + 1}: {kind} in {shares[0]:.0f} % of the front, in {shares[1]:.0f} % of all trials."
        )
    return sentences


def _trials(results: Results) -> str:
    """How many trials there are in each state; whether a driver still works on an unfinished one is not known here."""
    names = {"running": "running or interrupted"}
    counts = [f"{number:,} {names.get(state, state)}" for state, number in results.counts.items() if number]
    return ", ".join(counts) or "none so far"


def _of(part: int, whole: int) -> str:
    return "none" if part == 0 else "all" if part == whole else str(part)


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _power(number: int) -> str:
    """A large number to one digit: 2 × 10¹¹."""
    if number < 10**6:
        return f"{number:,}"
    digits = len(str(number)) - 1
    return f"{number / 10**digits:.1f} × 10" + str(digits).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
