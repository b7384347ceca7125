"""What importing costs: nothing heavy before it is needed."""

import subprocess
import sys

import pytest

import metaformer
import search_spaces

HEAVY = ("torch", "timm", "ray", "optuna", "pandas", "plotly")


def loaded_by(code: str) -> set[str]:
    """Which of the heavy libraries a fresh interpreter has loaded after running `code`."""
    listing = f"print(*[m for m in {HEAVY!r} if m in sys.modules])"
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n{listing}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import metaformer",
        "import search_spaces",
        "import nas.budget, nas.recipe, nas.study",
        "import nas.search, nas.cli; sys.argv = ['search', '--help']; nas.cli.run(nas.search.search)",
    ],
)
def test_writing_things_down_and_asking_for_help_load_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


def test_the_session_loads_neither_torch_nor_ray() -> None:
    assert loaded_by("import nas.session") & {"torch", "timm", "ray"} == set()


def test_training_and_data_load_no_more_than_a_bare_gpu_machine_has() -> None:
    assert loaded_by("import nas.training, nas.data") == {"torch", "timm"}


def test_the_public_names_are_chosen() -> None:
    assert set(metaformer.__all__) == {
        "Architecture",
        "ArchitectureError",
        "Cost",
        "MetaFormer",
        "build",
        "count_cost",
        "register_mixer",
        "zoo",
    }
    assert set(search_spaces.__all__) == {
        "Choice",
        "Limits",
        "SearchSpace",
        "SpaceError",
        "SpaceSettings",
        "get",
        "names",
    }
    for package in (metaformer, search_spaces):
        for name in package.__all__:
            assert getattr(package, name) is not None


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'metaformer' has no attribute 'Hyena'"):
        _ = metaformer.Hyena
