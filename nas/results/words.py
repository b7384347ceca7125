"""How results are said in words and short numbers; a missing value is a dash."""

from collections.abc import Sequence

from scipy.stats import binomtest

from metaformer.errors import printable
from nas.record.trials import TrialRecord
from nas.results.uncertainty import CLEAR, Estimate, Uncertainty
from nas.session.certainty.outlook import Outlook
from nas.session.proposers.earlier import Agreement
from nas.study.budget import Budget, format_device_time
from nas.study.objectives import ACCURACY, Objective, Objectives
from nas.study.objectives.units import short_count
from nas.study.prior import Prior
from nas.study.recipe import Recipe
from nas.study.splitting import DEFAULT_SPLITTING, Splitting
from nas.study.study import Study

_OPTIMIZERS = {"adamw": "AdamW", "lamb": "LAMB", "sgd": "SGD"}
_SCHEDULES = {"cosine": "cosine", "onecycle": "one cycle", "piecewise": "piecewise linear", "step": "steps"}


def objective_text(objective: Objective, trial: TrialRecord | None) -> str:
    """A trial's value of an objective with its unit, or a dash."""
    value = None if trial is None else objective.value(trial)
    return "–" if value is None else objective.text(value)


def cost_text(trial: TrialRecord, objectives: Objectives) -> str:
    """What a trial costs: `152 k parameters, 1.82 M MACs, latency 0.42 ms`."""
    measured = (f"{goal.noun} {objective_text(goal, trial)}" for goal in objectives.measured)
    return ", ".join([f"{short_count(trial.params)} parameters", f"{short_count(trial.macs)} MACs", *measured])


def objective_titles(study: Study) -> str:
    """The study's objectives with their units and, where they are measured, their limits."""
    titles = []
    for goal in study.goals:
        limit = study.measured_limits.get(goal.name)
        titles.append(goal.title + ("" if limit is None else f", at most {goal.text(limit)}"))
    return "; ".join(titles)


def recipe_text(recipe: Recipe) -> str:
    """How every trial is trained: `30 epochs of AdamW, batch 512, peak learning rate 0.0005, cosine, …`."""
    extras = {
        f"cool-down of {plural(recipe.cooldown_epochs, 'epoch')}": recipe.cooldown_epochs,
        f"drop path {recipe.drop_path}": recipe.drop_path is not None,
        f"averages of the weights with decay {recipe.ema_decay}": recipe.ema_decay is not None,
        f"gradients clipped at {recipe.clip_grad}": recipe.clip_grad is not None,
    }
    return (
        f"{plural(recipe.epochs, 'epoch')} of {_OPTIMIZERS[recipe.optimizer]}, batch {recipe.batch_size}, "
        f"peak learning rate {recipe.peak_lr:.3g}, {_SCHEDULES[recipe.schedule]}, "
        f"{plural(recipe.warmup_epochs, 'warm-up epoch')}, weight decay {recipe.weight_decay:g}, "
        + "".join(f"{text}, " for text, is_said in extras.items() if is_said)
        + f"precision {recipe.precision}"
    )


def splitting_text(splitting: Splitting) -> str:
    """In what the splits differ from the default: `at most 100 images of a class to train on, split seed 3`."""
    usual = DEFAULT_SPLITTING
    limit = splitting.images_per_class or 0
    said = {
        f"at most {limit:,} image{'s' * (limit > 1)} of a class to train on": limit,
        f"val {100 * splitting.val:g} % of each class": splitting.val != usual.val,
        f"split seed {splitting.seed}": splitting.seed != usual.seed,
    }
    return ", ".join(text for text, is_said in said.items() if is_said)


def difference(better: TrialRecord, worse: TrialRecord, objectives: Objectives) -> str:
    """What one complete trial has over another: `+1.20 points, −40 % parameters, −35 % MACs, −12 % latency`."""
    pairs = zip(objectives, objectives.values(better), objectives.values(worse), strict=True)
    return ", ".join(_change(objective, now, before) for objective, now, before in pairs)


def listing(words: Sequence[str]) -> str:
    """Words as a sentence lists them: `accuracy, parameters and MACs`."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def plural(number: int, noun: str) -> str:
    """A number and its noun: `1 trial`, `2 trials`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def part_of(part: int, whole: int) -> str:
    """How many of a whole: `none`, `all`, or the number."""
    return "none" if part == 0 else "all" if part == whole else str(part)


def duration_text(seconds: float) -> str:
    """Wall time in the largest unit that gives at least 2: `2.9 minutes`."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def large_number(number: int) -> str:
    """A number in full or, from a million on, to two digits: `2.0 × 10¹¹`."""
    if number < 10**6:
        return f"{number:,}"
    digits = len(str(number)) - 1
    return f"{number / 10**digits:.1f} × 10" + str(digits).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _change(objective: Objective, now: float, before: float) -> str:
    if now == before:
        return f"same {objective.noun}"
    if objective.name == ACCURACY:
        return f"{_signed(100 * (now - before), '.2f')} points"
    change = 100 * (now / before - 1)
    return f"{_signed(change, '.0f' if abs(change) >= 10 else '.1f')} % {objective.noun}"


def _signed(value: float, form: str) -> str:
    return f"{value:+{form}}".replace("-", "−")


def spent_text(spent: float, lost: float, budget: Budget) -> str:
    """`2cpu-hours of 6cpu-hours`, and what of it no lease reported, in device-seconds, since its driver was killed."""
    text = f"{format_device_time(spent, budget.device)} of {budget}"
    return (
        f"{text}, {format_device_time(lost, budget.device)} of it lost with drivers that were killed" if lost else text
    )


def probability_text(probability: float) -> str:
    """`p = 0.97`, or `p > 0.99` and `p < 0.01` near certainty."""
    if probability > 0.995:
        return "p > 0.99"
    return "p < 0.01" if probability < 0.005 else f"p = {probability:.2f}"


def wilson_interval(accuracy: float, num_images: int, *, level: float) -> tuple[float, float]:
    """Ends of the interval of an accuracy that was counted on so many images (E. B. Wilson, 1927)."""
    interval = binomtest(round(accuracy * num_images), num_images).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def interval_text(estimate: Estimate | None) -> str:
    """A 90 % interval of an accuracy by its middle, `91.6 ± 0.8 %`, or a dash."""
    if estimate is None:
        return "–"
    middle, half = 50 * (estimate.low + estimate.high), 50 * (estimate.high - estimate.low)
    digits = 1 if half >= 0.095 else 2
    return f"{middle:.{digits}f} ± {half:.{digits}f} %"


def standing_text(first: str, second: str, p_dominates: float | None) -> str:
    """How one model stands to another that costs no less; `dominates` only from a probability of 0.9 on.

    Args:
        p_dominates: That the first is more accurate; None: the noise is not known, but it was more accurate on val.
    """
    if p_dominates is None:
        return f"{first} is no worse than {second} on val"
    certainty = probability_text(p_dominates)
    if p_dominates >= CLEAR:
        return f"{first} dominates {second} with {certainty}"
    return f"{first} is {'tied with' if p_dominates > 1 - CLEAR else 'worse than'} {second} ({certainty})"


def basis_text(uncertainty: Uncertainty) -> str:
    """On what the intervals rest."""
    spread = f"a standard deviation of {100 * 0.9 * 0.1 * uncertainty.seed_sd:.1g} points where accuracy is 90 %"
    if uncertainty.num_replicates:
        seeds = f"the spread of {plural(uncertainty.num_replicates, 'replicate')} between seeds ({spread})"
    else:
        seeds = f"a prior of the spread between seeds ({spread}), since no architecture was trained twice"
    images = f"{uncertainty.num_val:,} val images"
    return f"Intervals hold the true accuracy with probability 0.9. They rest on {images} and on {seeds}."


def drop_text(uncertainty: Uncertainty, front: Sequence[TrialRecord]) -> str:
    """By how much the front's mean accuracy is expected to change from val to test, beside the change that was seen."""
    expected, again = (-100 * drop(front) for drop in (uncertainty.expected_drop, uncertainty.optimism))
    text = (
        f"Val chose the front, so it flatters it. Expected on test: {_signed(expected, '.2f')} points in the mean, "
        f"{_signed(again, '.2f')} if trained again with other seeds."
    )
    tested = [trial for trial in front if trial.test_accuracy is not None]
    if not tested:
        return text
    seen = sum((trial.test_accuracy or 0.0) - (trial.val_accuracy or 0.0) for trial in tested) / len(tested)
    return f"{text} Seen: {_signed(100 * seen, '.2f')} points ({plural(len(tested), 'model')}, all on the same images)."


def certainty_lines(uncertainty: Uncertainty | None, front: Sequence[TrialRecord]) -> list[str]:
    """What error bars rest on, and what to expect of the front on test; one sentence where there are none."""
    if not front:
        return []
    if uncertainty is None:
        return ["There are no error bars, since the number of val images was not noted."]
    return [basis_text(uncertainty), drop_text(uncertainty, front)]


def markdown_line(text: str) -> str:
    """One line that Markdown shows as it is: nothing in it is markup."""
    line = printable(" ".join(text.split()))
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#&~" else sign for sign in line)


def outlook_text(ahead: Outlook, budget: Budget) -> str:
    """What more device time is expected to add."""
    more = format_device_time(ahead.seconds, budget.device)
    return f"another {more} is expected to add {ahead.expected:.2%} of the hypervolume, {ahead.most:.2%} at most (90 %)"


def prior_text(prior: Prior) -> str:
    """An earlier search that another one starts from."""
    accuracies = [model.val_accuracy for model in prior.models]
    reach = f"{100 * min(accuracies):.1f} to {100 * max(accuracies):.1f} %"
    return f"{printable(prior.run)}: {plural(len(prior.models), 'architecture')}, {reach} on val there"


def agreement_text(prior: Prior, found: Agreement | None) -> str:
    """How far an earlier search foretold what came."""
    if found is None:
        return f"how far {printable(prior.run)} agrees is not known yet: too few trials are complete"
    trials = plural(found.num_trials, "complete trial")
    return f"{printable(prior.run)} agrees with Kendall's tau {found.tau:.2f} over {trials} (1: same order, 0: none)"
