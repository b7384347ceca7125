"""A team's defaults, from a YAML file."""

from pathlib import Path

import pytest

from nas.study.request import Request, Team, asked_splitting, read_team
from nas.study.splitting import Splitting
from nas.study.study import StudyError


def team_of(folder: Path, text: str) -> Team:
    path = folder / "nas.yaml"
    path.write_text(text, encoding="utf-8")
    return read_team(path)


def test_it_fills_what_was_not_asked_for(tmp_path: Path) -> None:
    team = team_of(
        tmp_path,
        "data: prepared:/fast/x\nepochs: 12\nwidth_scale: 1\ngpus_per_trial: 0.5\nloaders: 3\ntracker: wandb\n",
    )
    filled = team.fill(Request(epochs=4, budget="1gpu-days"))
    assert filled == Request(
        epochs=4, budget="1gpu-days", data="prepared:/fast/x", width_scale=1.0, gpus_per_trial="0.5"
    )
    assert team.fill(Request(), ("data",)) == Request(data="prepared:/fast/x")
    assert team.program == {"loaders": 3, "tracker": "wandb"}
    assert (
        str(team) == "data prepared:/fast/x, epochs 12, width_scale 1.0, gpus_per_trial 0.5, loaders 3, tracker wandb"
    )
    assert str(Team()) == ""


def test_a_part_of_it_is_what_it_says_of_some_options(tmp_path: Path) -> None:
    team = team_of(tmp_path, "data: digits\nepochs: 12\nloaders: 3\ntracker: wandb\n").part(("data", "loaders"))
    assert (team.request, team.program) == ({"data": "digits"}, {"loaders": 3})


def test_it_may_say_how_data_are_split(tmp_path: Path) -> None:
    team = team_of(tmp_path, "val_fraction: 0.2\nimages_per_class: 100\nsplit_seed: 3\n")
    assert asked_splitting(team.fill(Request()), {}) == Splitting(val=0.2, images_per_class=100, seed=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dat: digits", r"nas.yaml: unknown name? ?'?dat'?.*data|nas.yaml: option: unknown name 'dat'.*data"),
        ("epochs: many", r"nas.yaml: epochs: must be a whole number, got 'many'$"),
        ("epochs: true", r"nas.yaml: epochs: must be a whole number, got True$"),
        ("epochs: 1.5", r"nas.yaml: epochs: must be a whole number, got 1.5$"),
        ("width_scale: wide", r"nas.yaml: width_scale: must be a number, got 'wide'$"),
        ("val_fraction: some", r"nas.yaml: val_fraction: must be a number, got 'some'$"),
        ("images_per_class: 1.5", r"nas.yaml: images_per_class: must be a whole number, got 1.5$"),
        ("data: [a]", r"nas.yaml: data: must be a text, got \['a'\]$"),
        ("study: x.yaml", r"nas.yaml: .*unknown name 'study'"),
        ("extend: 1gpu-days", r"nas.yaml: .*unknown name 'extend'"),
        ("- data", r"nas.yaml: must "),
        ("{data", r"nas.yaml: must "),
    ],
)
def test_a_key_or_a_type_that_no_option_has_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        team_of(tmp_path, text)
    assert len(str(caught.value).splitlines()) == 1
