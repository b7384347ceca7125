"""The public surface, and what importing it loads."""

import json
import subprocess
import sys

import pytest

import metaformer

HEAVY = {"torch", "ray", "optuna", "timm", "pandas", "sklearn"}


def loaded_by(code: str) -> set[str]:
    """Which of the heavy packages a fresh process has loaded after running `code`."""
    report = "; import json, sys; print(json.dumps([name for name in sys.modules if '.' not in name]))"
    process = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return HEAVY & set(json.loads(process.stdout))


def test_the_public_names_are_those_of_the_design() -> None:
    assert set(metaformer.__all__) == {
        "Architecture",
        "ArchitectureError",
        "CheckpointError",
        "Cost",
        "MetaFormer",
        "build",
        "count_cost",
        "load",
        "register_mixer",
        "zoo",
    }
    assert all(hasattr(metaformer, name) for name in metaformer.__all__)


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match=r"^module 'metaformer' has no attribute 'bild'$"):
        _ = metaformer.bild


def test_counting_a_cost_loads_no_heavy_package() -> None:
    assert loaded_by("import metaformer; metaformer.count_cost(metaformer.zoo.get('poolformer_s12'))") == set()


def test_the_program_loads_no_heavy_package_before_it_is_needed() -> None:
    assert loaded_by("import metaformer.__main__") == set()


@pytest.mark.slow
def test_building_a_model_loads_torch_and_timm_alone() -> None:
    assert loaded_by("import metaformer; metaformer.build") == {"torch", "timm"}
