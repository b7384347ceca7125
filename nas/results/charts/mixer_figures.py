"""The report's charts of token mixers: which one each stage has along the front, and how often."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from metaformer.specs import MixerSpec
from nas.record.trials import TrialRecord
from nas.results.charts.axes import ACCURACY_AXIS
from nas.results.charts.figures import FRONT_COLOUR, finish, hover_text
from nas.results.results import Results, mixer_counts, mixer_text

_COLOURS = {
    "pool": "#5b8fc9",
    "attention": "#e3803c",
    "spatial_mlp": "#4aa37a",
    "dwconv": "#e8bd4b",
    "identity": "#b3b3b3",
    "random": "#b56aa8",
}
_MORE_COLOURS = ("#7467b0", "#9a6b5f", "#2ba3b8", "#8a9a3c")
_MOST_WORDS, _MOST_SIZES = 14, 45  # members of the front up to which the tiles carry names, and window sizes


def mixer_colours(trials: Sequence[TrialRecord]) -> dict[str, str]:
    """A colour for each kind of mixer that the trials have, the same in every report."""
    kinds = {stage.mixer.kind for trial in trials for stage in trial.architecture.stages}
    known = {kind: colour for kind, colour in _COLOURS.items() if kind in kinds}
    others = sorted(kinds - set(_COLOURS))
    return known | {kind: _MORE_COLOURS[i % len(_MORE_COLOURS)] for i, kind in enumerate(others)}


def mixer_tiles(results: Results) -> go.Figure:
    """The mixer of each stage of the front's members by rising parameters, below their accuracy."""
    front = results.front
    colours = mixer_colours(results.trials)
    kinds = list(colours)
    names = [f"{'★ ' if trial.references else ''}#{trial.number}" for trial in front]
    hover = [hover_text(trial, results) for trial in front]
    num_stages = max(len(trial.architecture.stages) for trial in front)
    rows = [[_mixer(trial, i) for trial in front] for i in range(num_stages)]
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.03, row_heights=[0.4, 0.6])
    figure.add_scatter(
        x=names,
        y=[ACCURACY_AXIS.value(trial) for trial in front],
        mode="lines+markers",
        line={"color": FRONT_COLOUR, "width": 1.5},
        hovertext=hover,
        hoverinfo="text",
        showlegend=False,
    )
    figure.add_heatmap(
        x=names,
        y=[f"stage {i + 1}" for i in range(num_stages)],
        z=[[kinds.index(mixer.kind) if mixer else None for mixer in row] for row in rows],
        text=[[_tile_text(mixer, len(front)) for mixer in row] for row in rows],
        texttemplate="%{text}",
        hovertext=[hover] * num_stages,
        hoverinfo="text",
        colorscale=_bands(list(colours.values())),
        zmin=-0.5,
        zmax=len(kinds) - 0.5,
        showscale=False,
        xgap=1,
        ygap=2,
        row=2,
        col=1,
    )
    for kind, colour in colours.items():
        key = {"symbol": "square", "size": 12, "color": colour}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=key, name=kind)
    figure.update_yaxes(title=ACCURACY_AXIS.title.replace("validation", "val."), row=1)
    figure.update_yaxes(autorange="reversed", row=2)
    figure.update_xaxes(type="category", showgrid=False, range=[-0.5, len(front) - 0.5])
    return finish(figure, height=460)


def mixer_shares(results: Results) -> go.Figure:
    """For each stage, the share that each mixer has of the front and of all trials."""
    figure = go.Figure()
    counts = [
        count for pair in zip(mixer_counts(results.front), mixer_counts(results.trials), strict=False) for count in pair
    ]
    rows = [[f"stage {i // 2 + 1}" for i in range(len(counts))], ["front", "all trials"] * (len(counts) // 2)]
    for kind, colour in mixer_colours(results.trials).items():
        shares = [100 * count[kind] / count.total() for count in counts]
        figure.add_bar(
            y=rows,
            x=shares,
            orientation="h",
            name=kind,
            marker={"color": colour},
            text=[f"{count[kind]}" if share >= 4 else "" for count, share in zip(counts, shares, strict=True)],
            textangle=0,
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate=f"%{{y}}: {kind} %{{x:.1f}} %<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.2, legend={"traceorder": "normal"})
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(range=[0, 100], ticksuffix=" %")
    return finish(figure, height=110 + 34 * len(counts))


def _mixer(trial: TrialRecord, stage: int) -> MixerSpec | None:
    stages = trial.architecture.stages
    return stages[stage].mixer if stage < len(stages) else None


def _tile_text(mixer: MixerSpec | None, num_members: int) -> str:
    if mixer is None or num_members > _MOST_SIZES:
        return ""
    if num_members > _MOST_WORDS:
        return mixer_text(mixer).removeprefix(mixer.kind).strip()
    return mixer_text(mixer)


def _bands(colours: Sequence[str]) -> list[tuple[float, str]]:
    """A colour scale of equal bands, one for each colour."""
    edges = [(i / len(colours), (i + 1) / len(colours)) for i in range(len(colours))]
    return [(edge, colour) for (low, high), colour in zip(edges, colours, strict=True) for edge in (low, high)]
