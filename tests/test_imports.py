"""What importing costs: nothing heavy before it is needed."""

import subprocess
import sys

import pytest

import nas
import search_spaces

HEAVY = ("torch", "timm", "ray", "optuna", "pandas", "plotly", "sklearn")


def loaded_by(code: str) -> set[str]:
    """Which of the heavy libraries a fresh interpreter has loaded after running `code`."""
    listing = f"print(*[m for m in {HEAVY!r} if m in sys.modules])"
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n{listing}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import search_spaces",
        "import nas",
        "import nas.study.budget, nas.study.recipe, nas.study.study",
        "import nas.search, nas.cli; sys.argv = ['search', '--help']; nas.cli.run(nas.search.search)",
        "import nas.transfer, nas.cli; sys.argv = ['transfer', '--help']; nas.cli.run(nas.transfer.transfer)",
    ],
)
def test_writing_things_down_and_asking_for_help_load_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


def test_the_session_loads_neither_torch_nor_ray() -> None:
    assert loaded_by("import nas.session.session") & {"torch", "timm", "ray"} == set()


@pytest.mark.slow
def test_a_driver_that_has_workers_train_does_not_load_what_trains() -> None:
    code = "import nas.launch, nas.data; nas.data.open_dataset('digits', resolution=16)"
    assert loaded_by(code) & {"timm", "sklearn"} == set()


@pytest.mark.slow
def test_training_and_data_load_no_more_than_a_bare_gpu_machine_has() -> None:
    assert loaded_by("import nas.training.loop, nas.data") == {"torch", "timm"}


def test_the_public_names_of_the_search_are_chosen() -> None:
    assert set(nas.__all__) == {"ExactCostSampler", "OpenedRun", "open_run", "run_search"}
    assert {getattr(nas, name).__name__ for name in nas.__all__} == set(nas.__all__)
    with pytest.raises(AttributeError, match="module 'nas' has no attribute 'open_runs'"):
        _ = nas.open_runs


def test_the_public_names_of_the_spaces_are_chosen() -> None:
    classes = {"Choice", "Limits", "SearchSpace", "SpaceError", "SpaceSettings"}
    assert set(search_spaces.__all__) == classes | {"get", "names"}
    assert all(hasattr(search_spaces, name) for name in search_spaces.__all__)
