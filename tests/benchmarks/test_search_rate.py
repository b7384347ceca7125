"""The comparison with Ray Tune and timm put together by hand: that both do the same, and the arithmetic of its rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.models.metaformer import MetaFormer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.data import write_jpegs
from benchmarks.search_rate.__main__ import Task, make_plan, make_recipe, path_of, run_apart
from benchmarks.search_rate.data import Folders, link, make_folders
from benchmarks.search_rate.models import in_timm
from benchmarks.search_rate.peer import make_model, make_optimizer, train_model
from benchmarks.search_rate.rates import Measured, Ratio, Trial, make_rows, steady_rate
from benchmarks.search_rate.space import DEFAULT, make_listed
from metaformer.architecture import Architecture
from metaformer.cost import count_cost
from metaformer.errors import UserError
from metaformer.network.model import build
from metaformer.specs import Norm, Stem
from nas.data.sources.folder import FolderSource
from nas.training.optimisation import make_optimizer as our_optimizer
from nas.training.optimisation import make_schedule
from search_spaces.hybrid_stages import HybridStages
from search_spaces.space import SearchSpace, SpaceError, SpaceSettings
from tests.nas.programs import ROOT
from tests.thorough import with_all_strikes

SETTINGS = SpaceSettings(
    resolution=32, num_classes=10, stem=Stem(kernel=3, stride=2, padding=1), width_scale=0.25
)  # as a search on CIFAR-10 has them
PARAMS_OF_TWO_CLASSES = 721_018 - 8 * (
    128 + 1
)  # of PoolFormer-S12, its variants and IdentityFormer-S12 at a quarter of the widths


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return make_listed(DEFAULT)(SETTINGS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("images")
    write_jpegs(root / "all", side=32, num_images=60)
    return make_folders(root / "all", root / "part", images_per_class=20)


def timms(arch: Architecture) -> MetaFormer:
    return make_model(in_timm(arch), num_classes=10)


def positions(arch: Architecture) -> int:
    """Parameters of position embeddings, which timm's MetaFormer has not."""
    sides = zip(arch.stages, arch.sides(), strict=True)
    return sum(stage.width * side**2 for stage, side in sides if stage.position_embedding)


@pytest.mark.parametrize("name", DEFAULT)
def test_a_model_of_the_peer_has_our_parameters_and_our_macs(space: SearchSpace, name: str) -> None:
    """timm's parameters are counted, and its MACs by torch; ours also has positions, a thousandth of all."""
    arch = space.references()[name]
    model, cost = timms(arch), count_cost(arch)
    assert sum(parameter.numel() for parameter in model.parameters()) == cost.params - positions(arch)
    assert positions(arch) < 0.002 * cost.params
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() == 2 * cost.macs


def test_both_have_the_same_learning_rate_at_every_step(space: SearchSpace, folders: Folders) -> None:
    recipe = make_recipe("cifar10_proxy", "digits", epochs=3, batch_size=36)
    arch = space.references()["poolformer_s12"]
    plan = make_plan(Task(folders, DEFAULT, recipe, 2, 0), space)
    ours, (theirs, schedule) = (
        our_optimizer(build(arch), recipe),
        make_optimizer(timms(arch), plan["recipe"], num_steps=5),
    )
    our_schedule = make_schedule(ours, recipe, 5)
    for step in range(15):
        our_schedule.step_update(step)
        assert len({group["lr"] for optimizer in (ours, theirs) for group in optimizer.param_groups}) == 1
        schedule.step_update(step + 1)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # timm's dataset leaves closing to Pillow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the same, seen by pytest
@pytest.mark.parametrize("recipe_name", ["cifar10_proxy", "poolformer"])
def test_a_trial_of_the_peer_trains_by_the_recipe(space: SearchSpace, folders: Folders, recipe_name: str) -> None:
    recipe = make_recipe(recipe_name, "digits", epochs=2, batch_size=12)
    task = Task(folders, DEFAULT[:1], recipe, 2, 0)
    plan = make_plan(task, space)
    assert list(plan["models"]) == ["poolformer_s12"]
    done = train_model(plan, "poolformer_s12")
    assert (done["model"], done["params"]) == ("poolformer_s12", PARAMS_OF_TWO_CLASSES)
    assert 0 <= done["val_accuracy"] <= 1


def test_both_have_the_same_images_for_training_and_validation(folders: Folders) -> None:
    source = FolderSource(str(folders.ours))
    for split in ("train", "val"):
        ours = {Path(source.path(split, place)).relative_to("train") for place in range(len(source.labels[split]))}
        found = list((folders.peer / split).rglob("*.jpg"))
        assert {path.relative_to(folders.peer / split) for path in found} == ours
        assert all(path.samefile(folders.ours / "train" / path.relative_to(folders.peer / split)) for path in found)
    assert (folders.num_train, folders.num_val, folders.num_test, folders.num_classes) == (36, 4, 4, 2)


def test_a_file_is_copied_where_it_cannot_be_linked(tmp_path: Path) -> None:
    """Linux links no file from /proc into another file system."""
    link(Path("/proc/version"), tmp_path / "a" / "version")
    assert (tmp_path / "a" / "version").read_text() == Path("/proc/version").read_text()


def test_a_listed_space_has_its_models_alone(space: SearchSpace) -> None:
    for name, arch in space.references().items():
        assert space.encode(arch) == {"model": name}
        assert space.decode({"model": name}) == arch
    assert space.size == len(DEFAULT) == len({arch.digest for arch in space.references().values()})
    stranger = HybridStages(SETTINGS).references()["poolformer_s36"]
    with pytest.raises(SpaceError, match=r"architecture: must be one of poolformer_s12, .*, got "):
        space.encode(stranger)
    with pytest.raises(SpaceError, match="models: .*poolformer_s12"):
        make_listed(["poolformer_s13"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("metaformer_dwconv_s12", "mixer: must be pool, attention or identity to be in timm, got dwconv"),
        ("metaformer_ppff_s12_224", "mixer: must be pool, attention or identity to be in timm, got spatial_mlp"),
    ],
)
def test_a_mixer_that_timm_has_not_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        in_timm(HybridStages(SETTINGS).references()[name])


def test_other_parts_that_timm_has_not_are_refused(space: SearchSpace) -> None:
    arch = space.references()["metaformer_ppaa_s12_224"]
    first, *others = arch.stages
    cases = (
        ({"stem": Stem(kernel=3, stride=2, padding=1, activation="gelu")}, "stem: must be a convolution alone"),
        ({"stages": (first.model_copy(update={"layer_scale": None}), *others)}, "layer_scale: must be the same"),
        (
            {"stages": tuple(s.model_copy(update={"norm": Norm(kind="mln")}) for s in arch.stages)},
            "norm: must be layer",
        ),
    )
    for update, message in cases:
        with pytest.raises(UserError, match=message):
            in_timm(arch.model_copy(update=update))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer: must be adamw for the peer to follow, got sgd"),
        ({"ema_decay": 0.9}, "ema_decay: must be None for the peer to follow, got 0.9"),
    ],
)
def test_a_recipe_that_the_peer_does_not_follow_is_refused(
    space: SearchSpace, folders: Folders, change: dict[str, object], message: str
) -> None:
    recipe = make_recipe("cifar10_proxy", "digits", epochs=3, batch_size=8).model_copy(update=change)
    with pytest.raises(UserError, match=message):
        make_plan(Task(folders, DEFAULT, recipe, 2, 0), space)


@pytest.mark.parametrize("data", ["digits", "folder:", "prepared:/data"])
def test_data_that_are_no_folder_are_refused(data: str) -> None:
    with pytest.raises(UserError, match="data: must be folder:PATH, which both can read"):
        path_of(data)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data: must have train/CLASS/IMAGES, got "):
        make_folders(tmp_path, tmp_path / "part", images_per_class=10)


@pytest.mark.slow
def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nas.prepare: must end with code 0, got 2: error: "):
        run_apart("nas.prepare", "folder:/not/there", "--out", str(tmp_path / "out"), folder=tmp_path)


def test_the_steady_rate_begins_when_every_slot_has_ended_a_trial() -> None:
    """Two at a time, ends at 10, 11, 20, 21 and 31 s: three trials in 20 s are 540 an hour."""
    assert steady_rate([21, 10, 31, 11, 20], num_at_a_time=2) == 540


def searched(*ended: float, wall: float, prepare: float) -> Measured:
    return Measured([Trial("poolformer_s12", 1, 0.5, end) for end in ended], wall, prepare, num_at_a_time=1)


def test_a_ratio_is_taken_within_a_round() -> None:
    """By hand: 3 trials in 10, 20 and 30 s beside 30, 40 and 300; between them 2 in 4 s beside 2 in 8."""
    ours = [searched(1, 2, 5, wall=wall, prepare=wall) for wall in (10, 20, 30)]
    peer = [searched(1, 2, 9, wall=wall, prepare=0) for wall in (30, 40, 300)]
    whole, with_prepare, between = make_rows(ours, peer)
    assert (whole.ours, whole.peer, whole.ratio) == (540, 270, Ratio(3, 2, 10))
    assert (with_prepare.ours, with_prepare.peer, with_prepare.ratio) == (270, 270, Ratio(1.5, 1, 5))
    assert (between.ours, between.peer, between.ratio) == (1800, 900, Ratio(2, 2, 2))
    assert str(whole.ratio) == "3.00 (2.00-10.00)"


@pytest.mark.slow
@with_all_strikes
@pytest.mark.xdist_group("ray")
def test_a_comparison_prints_both_tables_and_writes_all_figures(tmp_path: Path) -> None:
    write_jpegs(tmp_path / "all", side=32, num_images=40)
    command = [sys.executable, "-m", "benchmarks.search_rate", "--data", f"folder:{tmp_path / 'all'}", "--rounds", "1"]
    command += ["--images-per-class", "20", "--epochs", "1", "--batch-size", "12", "--json", str(tmp_path / "found")]
    command += ["--models", "poolformer_s12,metaformer_id_s12,poolformer_s12_pool5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "target of 3.0 times: " in done.stdout.splitlines()[-1]
    found = json.loads((tmp_path / "found").read_text())
    assert [row["name"] for row in found["rows"]] == [
        "whole command",
        "nas.prepare and whole command",
        "between trials",
    ]
    for who in ("ours", "peer"):
        [search] = found[who]
        assert [trial["params"] for trial in search["trials"]] == [PARAMS_OF_TWO_CLASSES] * 3
