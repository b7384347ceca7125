"""What was learned, on a console and as plain values for a program."""

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from metaformer.errors import UserError, shown, unknown_name
from nas.results.explain.effects import Comparison, Effect, Explanation, strongest
from nas.results.results import Results
from nas.results.words import listing, plural
from search_spaces.space import Choice, Gene, Genes

_MOST_NAMED = 3  # of the strongest effects, in a sentence


def show(
    results: Results, explanation: Explanation, console: Console, *, comparisons: Sequence[Comparison] = ()
) -> None:
    """Print the table of effects, what was asked to be compared, and what all of it rests on."""
    console.print(effects_table(results, explanation.effects))
    for comparison in comparisons:
        console.print(comparison_line(comparison), markup=False, soft_wrap=True)
    for line in explanation_lines(explanation):
        console.print(line)


def effects_table(results: Results, effects: Sequence[Effect]) -> Table:
    """One row for each effect; `*` marks those of which an interval of 90 % does not hold 0."""
    costs = listing([goal.noun for goal in results.goals if not goal.is_maximised])
    table = Table(title=f"Change of accuracy at equal {costs}, in points", title_justify="left")
    for column in ("gene", "change", "", "p above 0", "tried", "pairs", "in pairs"):
        table.add_column(column, justify="left" if column == "gene" else "right")
    for effect in effects:
        table.add_row(
            effect.text,
            f"{effect.points:+.2f} ± {1.645 * effect.sd:.2f}".replace("-", "−"),
            "*" if effect.is_clear else "",
            f"{effect.p_positive:.2f}",
            f"{effect.num_tried[0]:,}"
            if effect.value is None
            else f"{effect.num_tried[0]:,} / {effect.num_tried[1]:,}",
            f"{effect.num_pairs:,}" if effect.num_pairs else "",
            "" if effect.pair_points is None else f"{effect.pair_points:+.2f}".replace("-", "−"),
        )
    return table


def parse_comparison(text: str, choices: Sequence[Choice]) -> tuple[Genes, Genes]:
    """Two sides such as `stem=performer,overlap=paper : stem=patches,overlap=none`.

    Raises:
        UserError: It is written otherwise, or a gene or a value of it is unknown.
    """
    sides = text.split(":")
    if len(sides) != 2:
        raise UserError(f"compare: must be GENE=VALUE,… : GENE=VALUE,…, got {shown(text)}")
    return _parse_genes(sides[0], choices), _parse_genes(sides[1], choices)


def _parse_genes(text: str, choices: Sequence[Choice]) -> Genes:
    by_name = {choice.name: choice for choice in choices}
    found: Genes = {}
    for part in text.split(","):
        name, equals, written = (word.strip() for word in part.partition("="))
        if not equals:
            raise UserError(f"compare: must be GENE=VALUE,… : GENE=VALUE,…, got {shown(part.strip())}")
        if name not in by_name:
            raise UserError(unknown_name("compare", name, by_name))
        values: dict[str, Gene] = {str(value): value for value in by_name[name].values}
        if written not in values:
            raise UserError(unknown_name(f"compare: {name}", written, values))
        found[name] = values[written]
    return found


def comparison_line(comparison: Comparison) -> str:
    """`stem=performer instead of stem=patches: −0.7 ± 1.2 points, p above 0 0.17`."""
    first, second = (
        ", ".join(f"{name}={value}" for name, value in genes.items()) for genes in (comparison.first, comparison.second)
    )
    points = f"{comparison.points:+.2f} ± {1.645 * comparison.sd:.2f}".replace("-", "−")
    return f"{first} instead of {second}: {points} points, p above 0 {comparison.p_positive:.2f}"


def explanation_lines(explanation: Explanation) -> list[str]:
    """The strongest effects, on what they rest, and how far they can be believed."""
    clear = strongest(explanation.effects)
    said = [f"{effect.text} {effect.points:+.1f}".replace("-", "−") for effect in clear[:_MOST_NAMED]]
    by_costs, by_all = explanation.rank_correlations
    return [
        f"Strongest: {'; '.join(said)}." if said else "No gene is known to move accuracy at equal cost.",
        f"Points are those at {100 * explanation.accuracy:.1f} %, the median of the front, with intervals of 90 %. "
        f"They rest on {plural(explanation.num_architectures, 'architecture')}; each gene acts alone in this model.",
        "Kendall's tau between accuracy and its prediction where the architecture was left out: "
        f"{by_all:.2f}, by costs alone {by_costs:.2f}.",
        "Pairs are two architectures that differ in this alone; their difference is not at equal cost.",
    ]


def as_plain(
    results: Results, explanation: Explanation, *, comparisons: Sequence[Comparison] = ()
) -> dict[str, object]:
    """The explanation as plain values; effects are percentage points."""
    by_costs, by_all = explanation.rank_correlations
    return {
        "run": results.run.name,
        "num_architectures": explanation.num_architectures,
        "accuracy": explanation.accuracy,
        "tau_by_costs": by_costs,
        "tau": by_all,
        "effects": [
            {
                "gene": effect.gene,
                "value": effect.value,
                "instead_of": effect.instead_of,
                "points": effect.points,
                "sd": effect.sd,
                "p_positive": effect.p_positive,
                "num_tried": effect.num_tried[0],
                "num_pairs": effect.num_pairs,
                "pair_points": effect.pair_points,
            }
            for effect in explanation.effects
        ],
        "comparisons": [{**asdict(comparison), "p_positive": comparison.p_positive} for comparison in comparisons],
    }
