"""The benchmark of a paper's ablation: trainings that are taken up again, and verdicts."""

from pathlib import Path

import pytest
import yaml

from benchmarks import ablation
from benchmarks.ablation import Ablation, Trained, read, standings

FIELDS = {
    "question": "Which?",
    "recipe": "digits",
    "epochs": 1,
    "batch_size": 64,
    "seeds": 2,
    "resolution": 32,
    "width_scale": 0.125,
    "depth_scale": 0.5,
    "stem": {"kernel": 4, "stride": 4, "padding": 0},
    "rows": [
        {"name": "pooling 3", "model": "poolformer_s12", "published": 77.2},
        {"name": "identity", "model": "metaformer_id_s12", "published": 74.3},
        {"name": "ReLU", "model": "poolformer_s12_relu", "published": 77.5},
        {"name": "SiLU", "model": "poolformer_s12_silu", "published": 77.3},
    ],
}


def trained(row: str, *accuracies: float) -> list[Trained]:
    return [Trained(row, seed, 1, 1, 1.0, accuracy) for seed, accuracy in enumerate(accuracies)]


def test_a_difference_holds_where_its_interval_lies_on_the_published_side() -> None:
    study = Ablation.model_validate(FIELDS)
    rows = [
        *trained("pooling 3", 0.500, 0.501, 0.502),
        *trained("identity", 0.450, 0.451, 0.452),  # surely worse, as published
        *trained("ReLU", 0.490, 0.491, 0.492),  # surely worse, published to be better by 0.3
        *trained("SiLU", 0.500, 0.501, 0.502),  # published to be as good
    ]
    found = standings(study, rows)
    assert [each.verdict for each in found] == ["", "holds", "does not hold", "holds"]
    assert found[1].difference == pytest.approx(-5.0)
    assert found[1].half == pytest.approx(0.152, abs=0.001)  # t of 8 degrees of freedom, 90 %: 1.860 * 0.1 * sqrt(2/3)


def test_nothing_can_be_told_of_one_seed_or_of_seeds_far_apart() -> None:
    study = Ablation.model_validate(FIELDS)
    for rows in (
        [*trained("pooling 3", 0.50), *trained("identity", 0.40)],
        [*trained("pooling 3", 0.50, 0.60), *trained("identity", 0.51, 0.61)],
    ):
        assert [each.verdict for each in standings(study, rows)] == ["", "cannot be told"]


@pytest.mark.slow
def test_trainings_that_are_there_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "CURVES", tmp_path)
    study, curves = tmp_path / "small.yaml", tmp_path / "small.csv"
    study.write_text(yaml.safe_dump(FIELDS | {"rows": FIELDS["rows"][:2], "seeds": 1}), encoding="utf-8")
    ablation.run(study, data="digits", processes=2, work=tmp_path / "work")
    first = curves.read_text(encoding="utf-8")
    assert {(each.row, each.seed) for each in read(curves)} == {("pooling 3", 0), ("identity", 0)}
    assert not list((tmp_path / "work" / "small").glob("*/"))
    study.write_text(yaml.safe_dump(FIELDS | {"rows": FIELDS["rows"][:2]}), encoding="utf-8")
    ablation.run(study, data="digits", processes=2, work=tmp_path / "work")
    assert curves.read_text(encoding="utf-8").startswith(first)
    assert len(read(curves)) == 4
