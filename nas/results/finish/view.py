"""The finals of a search on a console, as sentences, and as a table for other programs."""

from collections.abc import Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

from nas.results.finish.finals import Final, RankCorrelation, finals_of, rank_correlation
from nas.results.results import Results, mixers_text, percent
from nas.results.words import basis_text, interval_text, plural, probability_text, spent_text
from nas.study.budget import Budget

_MOST_RIVALS = 3  # that are named beside a hand-designed model


def print_finals(console: Console, results: Results) -> None:
    """Say what came out, and what to type next."""
    finals, run = finals_of(results), results.run
    console.print(finals_table(results, finals))
    for line in finals_lines(results, finals):
        console.print(line)
    for line in standing_lines(results, finals):
        console.print(line)
    budget = Budget.parse(run.study.budget)
    console.print(f"spent {spent_text(results.spent_seconds, run.record.lost_seconds, budget)}")
    console.print(f"report   {run.folder.report_html}")
    console.print(f"next     python -m nas.export {run.folder.path} --pick knee --out arch.yaml", soft_wrap=True)
    if num_missing(results, finals):
        console.print("         the same command goes on with what is left of the budget; --extend adds to it")
    else:
        console.print("         a larger --seeds trains each once more, with --extend for the time that takes")


def finals_table(results: Results, finals: Sequence[Final]) -> Table:
    """One row for each model, the final front first."""
    num_front = sum(final.is_on_front for final in finals)
    table = Table(title=f"Final front: {num_front} of {plural(len(finals), 'model')}", title_justify="left")
    for column in ("model", "mixers"):
        table.add_column(column)
    for column in ("front", "seeds", "val", "true (90 %)", "p front", "test", "in search", "params", "MACs"):
        table.add_column(column, justify="right", no_wrap=True)
    for final in finals:
        cost = results.run.space.cost(final.architecture)
        table.add_row(
            final.name,
            mixers_text(final.architecture),
            "yes" if final.is_on_front else "",
            str(len(final.trials)),
            str(final.val or "–"),
            interval_text(final.estimate),
            f"{final.estimate.p_on_front:.2f}" if final.estimate else "–",
            str(final.test or "–"),
            percent(final.model.val_accuracy),
            f"{cost.params:,}",
            f"{cost.macs:,}",
        )
    return table


def finals_lines(results: Results, finals: Sequence[Final]) -> list[str]:
    """What the figures are, on what they rest, and what the search's ranking was worth."""
    lines = ["Accuracies are means over seeds ± their standard deviation. The front is that of mean accuracies on val."]
    if results.uncertainty is not None:
        lines.append(basis_text(results.uncertainty))
    lines.append(rank_text(rank_correlation(finals)))
    missing = num_missing(results, finals)
    if missing:
        lines.append(f"{plural(missing, 'training')} of {_num_asked(results)} did not complete.")
    return lines


def standing_lines(results: Results, finals: Sequence[Final]) -> list[str]:
    """How each hand-designed model stands to the found ones, and which of these come first before it, with p."""
    names = {trial.number: final.name for final in finals for trial in final.trials}
    lines = []
    for reference in results.references:
        if reference.trial is None or reference.trial.number not in names:
            continue
        rivals = [
            names[rival.trial.number]
            + ("" if rival.p_dominates is None else f" ({probability_text(rival.p_dominates)})")
            for rival in reference.rivals[:_MOST_RIVALS]
        ]
        by = f": {', '.join(rivals)}" if rivals else ""
        verdict = reference.verdict_naming(lambda trial: names[trial.number])
        lines.append(f"{' = '.join(reference.names)}: {verdict}{by}")
    return lines


def rank_text(correlation: RankCorrelation | None) -> str:
    """What the search's ranking was worth, in one sentence."""
    if correlation is None:
        return "Too few models were trained to say how well the search had ranked them."
    return (
        f"Kendall's tau between accuracy on val in the search and mean accuracy on test here: "
        f"{_signed(correlation.tau)}, with probability 0.9 between {_signed(correlation.low)} and "
        f"{_signed(correlation.high)} ({correlation.num_models} models, bootstrap)."
    )


def num_missing(results: Results, finals: Sequence[Final]) -> int:
    """Trainings that were asked for and are not complete."""
    asked = results.run.study.finals
    seeds = () if asked is None else asked.seeds
    return sum(len(set(seeds) - {trial.seed for trial in final.trials}) for final in finals)


def finals_frame(results: Results) -> pd.DataFrame:
    """One row for each model; accuracies lie in [0, 1], values of stages are joined by `|`."""
    rows = []
    for final in finals_of(results):
        cost = results.run.space.cost(final.architecture)
        rows.append(
            {
                "model": final.name,
                "search_trial": final.model.trial,
                "on_front": final.is_on_front,
                "p_on_front": final.estimate and final.estimate.p_on_front,
                "seeds": len(final.trials),
                "val_mean": final.val and final.val.mean,
                "val_sd": final.val and final.val.sd,
                "val_low": final.estimate and final.estimate.low,
                "val_high": final.estimate and final.estimate.high,
                "test_mean": final.test and final.test.mean,
                "test_sd": final.test and final.test.sd,
                "search_val": final.model.val_accuracy,
                "params": cost.params,
                "macs": cost.macs,
                "mixers": mixers_text(final.architecture, between="|"),
            }
        )
    return pd.DataFrame(rows)


def _num_asked(results: Results) -> int:
    finals = results.run.study.finals
    return 0 if finals is None else len(finals.models) * len(finals.seeds)


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
