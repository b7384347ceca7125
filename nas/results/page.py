"""The report as one HTML page that needs nothing else: charts, tables, and what they say in words."""

import json
import shlex
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.resources import files

import plotly
from jinja2 import Environment, StrictUndefined, Template
from plotly.io import templates
from plotly.offline import get_plotlyjs

from metaformer.errors import UserError
from nas.record.trials import TrialRecord, TrialState
from nas.results.charts.figures import TEMPLATE
from nas.results.charts.gallery import charts_of
from nas.results.charts.mixer_figures import mixer_colours
from nas.results.explain.effects import FEWEST, Explanation
from nas.results.explain.view import explanation_lines
from nas.results.finish.finals import finals_of
from nas.results.finish.view import finals_lines
from nas.results.results import (
    Results,
    block_text,
    differs_from_paper,
    families_text,
    mixers_text,
    percent,
    stage_label,
    stage_mixers_text,
    stem_stride,
)
from nas.results.tables.columns import columns_of, table_of
from nas.results.tables.endings import causes, stopped_groups
from nas.results.words import (
    agreement_text,
    certainty_lines,
    cost_text,
    difference,
    interval_text,
    large_number,
    listing,
    objective_text,
    objective_titles,
    outlook_text,
    part_of,
    plural,
    probability_text,
    recipe_text,
    spent_text,
    splitting_text,
    standing_text,
)
from nas.session.pareto import knee
from nas.study.budget import Budget, format_device_time
from nas.study.finals import Finals
from nas.study.objectives.units import short_count

_MOST_RIVALS = 3  # found models spelled out for each hand-designed one; the others are listed by number
_MOST_NEAR = 10  # trials near the front that are named
_NEAR_FRONT = 0.25  # from this probability of being on the front on, a trial that is off it is named


def read_template(package: str, name: str, filters: Mapping[str, Callable[..., object]]) -> Template:
    """A template in a package, in which what is filled in is escaped and nothing may be missing."""
    source = files(package).joinpath(name).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= filters
    return environment.from_string(source)


def render(results: Results) -> str:
    """The page as text."""
    filters: dict[str, Callable[..., object]] = {
        "percent": percent,
        "count": short_count,
        "mixers": stage_mixers_text,
        "shell": shlex.quote,
        "objective": objective_text,
        "plural": plural,
        "listing": listing,
        "interval": interval_text,
        "probability": probability_text,
    }
    study, goals = results.run.study, results.goals
    charts, finals = charts_of(results), finals_of(results)
    scripts = {chart.name: chart.figure.to_json() for group in charts.values() for chart in group}
    if charts:
        scripts["template"] = json.dumps(templates[TEMPLATE].to_plotly_json())
    scripts["trials"] = json.dumps(columns_of(results), ensure_ascii=False, separators=(",", ":"))
    return read_template("nas.results", "report.html.jinja", filters).render(
        results=results,
        run=results.run,
        study=study,
        goals=goals,
        nouns=[goal.noun for goal in goals],
        headline=headline_of(results),
        facts=facts_of(results),
        knee=_knee(results),
        differs=differs_from_paper(study),
        step=_accuracy_step(results),
        winners=_winners(results),
        baselines=_baselines(results),
        colours=mixer_colours(results),
        label=lambda stage: stage_label(stage, results.mixer_label),
        has_patches=not results.run.space.takes_stem,
        num_stages=max((len(trial.architecture.stages) for trial in results.front), default=0),
        stem_stride=stem_stride,
        block_text=block_text,
        stopped=stopped_groups(results.trials),
        causes=causes(results.trials, results.notes.events),
        failed=[trial for trial in results.trials if trial.state is TrialState.FAILED],
        cost_text=cost_text,
        difference=difference,
        standing=standing_text,
        certainty=certainty_lines(results.uncertainty, results.front),
        near_front=_near_front(results),
        most_rivals=_MOST_RIVALS,
        most_near=_MOST_NEAR,
        finals=finals,
        finals_lines=finals_lines(results, finals),
        mixers_text=mixers_text,
        shown=lambda reference: [rival.trial for rival in reference.rivals[:_MOST_RIVALS]],
        tested=any(trial.test_accuracy is not None for trial in results.front),
        charts=charts,
        scripts={name: in_script(text) for name, text in scripts.items()},
        states=[state for state, number in results.counts.items() if number],
        columns=list(table_of(results)),
        page_js=files("nas.results").joinpath("report.js").read_text(encoding="utf-8"),
        effects=_effects(results),
        plotly_js=get_plotlyjs() if charts else "",
        plotly_version=plotly.__version__,
    )


def _effects(results: Results) -> tuple[list[str], list[tuple[str, str, bool, str, str]]]:
    """What is known of each gene at equal cost, as sentences and rows; nothing where too few trials are complete."""
    if len(results.complete) < FEWEST:
        return [], []
    try:
        explanation = Explanation(results, pairs=False)
    except UserError as error:
        return [str(error)], []
    rows = [
        (
            effect.text,
            f"{effect.points:+.2f} ± {1.645 * effect.sd:.2f}".replace("-", "−"),
            effect.is_clear,
            f"{effect.p_positive:.2f}",
            f"{effect.num_tried[0]:,}" + ("" if effect.value is None else f" / {effect.num_tried[1]:,}"),
        )
        for effect in explanation.effects
    ]
    return explanation_lines(explanation)[:3], rows


def in_script(text: str) -> str:
    """JSON without `<`, so that no text in it can close the script element that holds it."""
    return text.replace("<", "\\u003c")


def headline_of(results: Results) -> str:
    """The answer in one or two sentences."""
    best = results.best
    if best is None:
        return f"No trial is complete yet, so there is no front to show (trials: {_trials(results)})."
    front = results.front
    found = sum(not trial.references for trial in front)
    mean = "" if results.run.study.finals is None else "mean "
    text = (
        f"{plural(len(front), 'architecture')} on the front, {part_of(found, len(front))} found by the search. "
        f"Best {mean}validation accuracy {percent(best.val_accuracy)} by trial {best.number} "
        f"({cost_text(best, results.goals)})."
    )
    trained = [reference for reference in results.references if reference.trial in results.trained_references]
    if trained:
        beaten = sum(reference.is_dominated for reference in trained)
        tied = sum(reference.is_tied for reference in trained)
        models = plural(len(trained), "hand-designed model")
        text += f" Of {models}, {part_of(beaten, len(trained))} {_be(beaten)} dominated by a found one"
        text += f" and {tied} {_be(tied)} tied with one." if tied else "."
    return text


def _be(number: int) -> str:
    return "is" if number == 1 else "are"


def _near_front(results: Results) -> list[TrialRecord]:
    """Trials that are off the front, but belong there with a probability of a quarter or more; the likeliest first."""
    members = {trial.number for trial in results.front}
    known = [(estimate.p_on_front, trial) for trial in results.complete if (estimate := results.estimate(trial))]
    near = [(p, trial) for p, trial in known if p >= _NEAR_FRONT and trial.number not in members]
    return [trial for p, trial in sorted(near, key=lambda pair: (-pair[0], pair[1].number))]


def facts_of(results: Results) -> list[tuple[str, str]]:
    """What was searched, how, and for how much."""
    study, space = results.run.study, results.run.space
    settings, budget = study.settings, Budget.parse(study.budget)
    limits = {"parameters": settings.limits.max_params, "MACs": settings.limits.max_macs}
    limited = "".join(f", at most {short_count(limit)} {what}" for what, limit in limits.items() if limit)
    most = "" if space.size_is_exact else "at most "
    spent = spent_text(results.spent_seconds, results.run.record.lost_seconds, budget)
    versions = ", ".join(f"{name} {version(name)}" for name in ("metaformer-nas", "torch", "timm", "optuna", "plotly"))
    device, splits = results.notes.device, _splits(results)
    return [
        ("Space", f"{study.space}: {most}{large_number(space.size)} architectures{limited}"),
        *([("Families", families_text(results))] if results.families and results.front else []),
        ("Objectives", objective_titles(study)),
        *([("Hardware", results.notes.hardware)] if results.notes.hardware else []),
        *([("Measured on", device)] if device else []),
        ("Data", f"{study.data}, {settings.num_classes} classes, {settings.resolution} × {settings.resolution} pixels"),
        *([("Splits", splits)] if splits else []),
        ("Written with", versions),
        ("Recipe", recipe_text(study.recipe)),
        ("Budget", f"{spent} spent ({100 * results.spent_seconds / budget.seconds:.0f} %)"),
        ("Trials", _trials(results)),
        *_new_seeds(results),
        ("Search", f"{study.sampler}, seed {study.seed}") if study.finals is None else _finals_fact(study.finals),
        ("Hypervolume", f"{results.hypervolume:.4f} of the unit cube (error; each cost on a log scale over its range)"),
        *([("Outlook", outlook_text(results.outlook, budget))] if results.outlook else []),
        *([("Prior", agreement_text(study.prior, results.prior_agreement))] if study.prior else []),
    ]


def _new_seeds(results: Results) -> list[tuple[str, str]]:
    """How often a search trained an architecture again, and what that took; nothing where it did not."""
    study, record = results.run.study, results.run.record
    again = [trial for trial in results.trials if trial.seed is not None]
    if study.finals is not None or not again:
        return []
    spent = format_device_time(record.confirm_seconds, Budget.parse(study.budget).device)
    number = len({trial.architecture.digest for trial in again})
    return [("New seeds", f"{plural(len(again), 'training')} of {plural(number, 'architecture')}, {spent}")]


def _finals_fact(finals: Finals) -> tuple[str, str]:
    return "Finals", f"{plural(len(finals.models), 'model')}, seeds {listing([str(seed) for seed in finals.seeds])}"


def _splits(results: Results) -> str:
    """How many images each split has, where that is known, and in what they differ from the default."""
    images = ", ".join(f"{number:,} {split}" for split, number in (results.notes.num_images or {}).items())
    splits = splitting_text(results.run.study.splitting)
    return f"{images} ({splits})" if images and splits else images or splits


def _knee(results: Results) -> TrialRecord | None:
    """The balanced member of the front; None while there is no front."""
    if not results.front:
        return None
    return results.front[knee([results.goals.values(trial) for trial in results.front], results.goals)]


def _accuracy_step(results: Results) -> str:
    """How finely validation accuracy can tell models apart, in percentage points; empty where it is not known."""
    if not results.num_val or results.best is None:
        return ""
    right = (results.best.val_accuracy or 0.0) * results.num_val
    share = (right + 2) / (results.num_val + 4)  # Agresti and Coull's, so that 100 % has an error too
    error = 100 * (share * (1 - share) / results.num_val) ** 0.5
    return (
        f"Validation has {results.num_val:,} images: accuracy moves in steps of {100 / results.num_val:.2g} points, "
        f"and the standard error of the best one is about {error:.2g} points."
    )


def _baselines(results: Results) -> str:
    """How the best of the front stands beside simple classifiers; empty where there is nothing to compare."""
    known, best = results.notes.baselines, results.best
    if not known or best is None:
        return ""
    reached = listing([f"{name} reaches {percent(val)}" for name, (val, _) in known.items()])
    text = f"The best of the front reaches {percent(best.val_accuracy)} on validation; on the same pixels {reached}."
    if max(val for val, _ in known.values()) >= (best.val_accuracy or 0.0):
        text += (
            " No model does better than these classifiers. So the models were trained too briefly, or the data "
            "is too easy, to say which mixer is best."
        )
    return text


def _winners(results: Results) -> list[str]:
    """For each stage the mixer that the front has most often, beside how often the search tried it."""
    counts = results.mixer_counts
    sentences = []
    for i, (front, tried) in enumerate(counts):
        stage = f"Stage {i + 1}" if len(counts) > 1 else "All blocks"
        kind, number = front.most_common(1)[0]
        shares = (100 * number / front.total(), 100 * tried[kind] / tried.total())
        sentences.append(f"{stage}: {kind} in {shares[0]:.0f} % of the front, in {shares[1]:.0f} % of all trials.")
    return sentences


def _trials(results: Results) -> str:
    """How many trials there are in each state; whether a driver still works on an unfinished one is not known here."""
    names = {"running": "running or interrupted"}
    counts = [f"{number:,} {names.get(state, state)}" for state, number in results.counts.items() if number]
    return ", ".join(counts) or "none so far"
