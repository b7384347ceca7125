"""The report's charts of token mixers: which one each stage has along the front, and how often."""

import itertools
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from metaformer.specs import MixerSpec, Stage
from nas.record.trials import TrialRecord
from nas.results.charts.axes import ACCURACY_AXIS
from nas.results.charts.colours import FRONT_COLOUR, MIXER_COLOURS
from nas.results.charts.figures import finish, numbers_of
from nas.results.results import Results, mixer_text, stage_label

_MORE_COLOURS = ("#8a9a3c", "#c25b6e", "#3f6f5c", "#6b7a90")
_DARKER = 0.6  # times red, green and blue of a mixer that shares its stage with another one
_MOST_WORDS, _MOST_SIZES = 14, 45  # members of the front up to which the tiles carry names, and window sizes


def mixer_colours(results: Results) -> dict[str, str]:
    """A colour for each mixer that a stage has had, by `stage_label`; that of a kind is the same in every report.

    A mixer that shares its stage with another one has its own colour, darker.
    """
    mixers = sorted(results.mixers.values(), key=_kind_and_window)
    labels = list(dict.fromkeys(map(results.mixer_label, mixers)))
    known = {kind: colour for kind, colour in MIXER_COLOURS.items() if kind in labels}
    others = [name for name in labels if name not in MIXER_COLOURS]
    free = _MORE_COLOURS if known else (*MIXER_COLOURS.values(), *_MORE_COLOURS)
    plain = known | dict(zip(others, itertools.cycle(free), strict=False))  # a cycle has no end
    label = results.mixer_label
    stages = {stage_label(stage, label): stage for stage in results.stages}
    mixed = {name: _darker(plain[label(stages[name].mixer)]) for name in sorted(stages.keys() - plain.keys())}
    return {name: colour for name, colour in plain.items() if name in stages} | mixed


def mixer_tiles(results: Results) -> go.Figure:
    """The mixer of each stage of the front's members by rising parameters, below their accuracy."""
    front = results.front
    colours = mixer_colours(results)
    label, labels = results.mixer_label, list(colours)
    names = [f"{'★ ' if trial.references else ''}#{trial.number}" for trial in front]
    numbers = numbers_of(front)
    num_stages = max(len(trial.architecture.stages) for trial in front)
    rows = [[_stage(trial, i) for trial in front] for i in range(num_stages)]
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.03, row_heights=[0.4, 0.6])
    figure.add_scatter(
        x=names,
        y=[ACCURACY_AXIS.value(trial) for trial in front],
        mode="lines+markers",
        line={"color": FRONT_COLOUR, "width": 1.5},
        customdata=numbers,
        hoverinfo="text",
        showlegend=False,
    )
    figure.add_heatmap(
        x=names,
        y=[_stage_name(i, num_stages) for i in range(num_stages)],
        z=[[labels.index(stage_label(stage, label)) if stage else None for stage in row] for row in rows],
        text=[[_tile_text(stage, len(front)) for stage in row] for row in rows],
        texttemplate="%{text}",
        customdata=[numbers.tolist()] * num_stages,
        hoverinfo="text",
        colorscale=_bands(list(colours.values())),
        zmin=-0.5,
        zmax=len(labels) - 0.5,
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
    counts = [count for pair in results.mixer_counts for count in pair]
    rows = [
        [_stage_name(i // 2, len(counts) // 2) for i in range(len(counts))],
        ["front", "all trials"] * (len(counts) // 2),
    ]
    for kind, colour in mixer_colours(results).items():
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


def _stage_name(index: int, num_stages: int) -> str:
    return f"stage {index + 1}" if num_stages > 1 else "all blocks"


def _stage(trial: TrialRecord, index: int) -> Stage | None:
    stages = trial.architecture.stages
    return stages[index] if index < len(stages) else None


def _kind_and_window(mixer: MixerSpec) -> tuple[str, int]:
    return mixer.kind, getattr(mixer, "size", 0)


def _tile_text(stage: Stage | None, num_members: int) -> str:
    if stage is None or num_members > _MOST_SIZES:
        return ""
    if num_members > _MOST_WORDS:
        return mixer_text(stage.mixer).removeprefix(stage.mixer.kind).strip()
    return stage_label(stage, mixer_text).replace(" + ", "<br>+ ")


def _darker(colour: str) -> str:
    return "#" + "".join(f"{round(_DARKER * int(colour[i : i + 2], 16)):02x}" for i in (1, 3, 5))


def _bands(colours: Sequence[str]) -> list[tuple[float, str]]:
    """A colour scale of equal bands, one for each colour."""
    edges = [(i / len(colours), (i + 1) / len(colours)) for i in range(len(colours))]
    return [(edge, colour) for (low, high), colour in zip(edges, colours, strict=True) for edge in (low, high)]
