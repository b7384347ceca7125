"""How far a proxy ranks as longer training does, with size taken away."""

import random
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fidelity import agreement
from benchmarks.proxy import at_equal_cost, proxy
from metaformer.errors import UserError
from nas.execution.curves import Curve, CurveFile, Training
from nas.study.study import Study
from tests.nas.programs import ROOT
from tests.nas.runs import make_study

MACS = [10**6 * (place + 1) for place in range(12)]


def test_what_lies_on_a_line_over_log_macs_is_taken_away() -> None:
    line = [0.2 + 0.05 * float(np.log(macs)) for macs in MACS]
    assert at_equal_cost(line, MACS) == pytest.approx(np.zeros(12), abs=1e-12)
    bumps = np.array([0.01, -0.01] * 6)
    above = at_equal_cost((np.array(line) + bumps).tolist(), MACS)
    assert (np.sign(above) == np.sign(bumps)).all()


def test_trainings_that_agree_by_size_alone_do_not_at_equal_cost() -> None:
    rng = random.Random(0)
    first, second = ([0.3 * float(np.log(macs)) + rng.gauss(0, 0.02) for macs in MACS] for _ in range(2))
    assert agreement(first, second).tau > 0.9
    above = [at_equal_cost(each, MACS).tolist() for each in (first, second)]
    assert agreement(above[0], above[1]).tau < 0.5


def test_tables_of_one_sample_are_compared_over_what_they_have_in_common(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, rng = make_study(), random.Random(0)
    space, tables = study.make_space(), [tmp_path / "long.csv", tmp_path / "short.csv"]
    archs = list({arch.digest: arch for arch in (space.sample(rng) for _ in range(12))}.values())
    for path, length, number in zip(tables, (4, 2), (len(archs), len(archs) - 1), strict=True):
        path.with_suffix(".yaml").write_text(study.to_yaml(), encoding="utf-8")
        with CurveFile(path, space) as file:
            for place, arch in enumerate(archs[:number]):
                file.add(Training(arch, 0), Curve(1.5, (0.1,) * (length - 1) + (0.3 + place / 100,)))
    proxy(tables[0], [tables[1]])
    told = capsys.readouterr().out
    assert f"{len(archs) - 1} architectures, Kendall's tau with" in told
    assert "1.00 (1.00 to 1.00)" in told
    with pytest.raises(UserError, match="must have at least 5 architectures in common, got 0"):
        proxy(tables[0], [_empty(tmp_path, study)])


def test_the_header_of_a_proxy_has_the_figures_of_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("long_default", "short_default", "short_mild")
    long, *short = (ROOT / "studies" / "curves" / f"{name}.csv" for name in names)
    proxy(long, short)
    told = capsys.readouterr().out
    header = (ROOT / "nas" / "study" / "recipes" / "cifar10_proxy.yaml").read_text(encoding="utf-8")
    found = re.search(
        r"over (\d+) .* is (0\.\d\d \(.*?\)), at equal MACs (0\.\d\d \(.*?\)); .* have (0\.\d\d) and (0\.\d\d)\.",
        " ".join(header.replace("#", " ").split()),
    )
    assert found is not None
    number, *taus = found.groups()
    assert f"{number} architectures" in told
    assert [tau for tau in taus if tau not in told] == []


def _empty(folder: Path, study: Study) -> Path:
    path = folder / "none.csv"
    path.with_suffix(".yaml").write_text(study.to_yaml(), encoding="utf-8")
    path.write_text("", encoding="utf-8")
    return path
