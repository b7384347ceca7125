"""From flags, study file and defaults to a study, and what a budget is predicted to buy."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from metaformer.cost import count_cost
from metaformer.errors import UserError
from metaformer.specs import Stem
from nas.data import DataInfo, default_recipe, open_dataset
from nas.make_study import default_settings, find_images, make_study
from nas.study.request import Request, parse_count, parse_limits
from nas.study.splitting import Splitting
from nas.study.study import Study, StudyError
from search_spaces import get
from search_spaces.space import Limits, SpaceSettings
from tests.nas.images import write_folder

DIGITS = open_dataset("digits", resolution=16).info
SPACE = get("hybrid_stages", SpaceSettings(resolution=32, num_classes=10))


def study_of(fields: dict[str, object] | None = None, *, info: DataInfo = DIGITS, **asked: object) -> Study:
    """The study of a study file's fields and of what was asked for beside it."""
    return make_study(dataclasses.replace(Request(budget="6cpu-minutes"), **asked), fields or {}, info)


def large_images(**changes: object) -> DataInfo:
    info = DataInfo(
        name="folder:/data/imagenet",
        num_classes=1000,
        class_names=(),
        resolution=224,
        num_images={"train": 1_153_051, "val": 128_116, "test": 50_000},
        fingerprint="0123456789abcdef",
    )
    return dataclasses.replace(info, **changes)


def test_a_budget_is_all_that_has_to_be_given() -> None:
    study = study_of()
    assert (study.space, study.data, study.sampler, study.seed) == ("hybrid_stages", "digits", "exact_cost", 0)
    assert study.data_fingerprint == DIGITS.fingerprint
    assert study.recipe == default_recipe("digits")
    assert study.settings == default_settings(DIGITS)
    assert set(study.references) < set(study.make_space().references())  # one of each pattern
    assert (study.max_trials, study.workers, study.storage) == (None, None, None)


def test_the_default_sampler_is_the_one_that_knows_the_costs_unless_objectives_are_measured() -> None:
    assert study_of({"objectives": ["accuracy", "macs"]}).sampler == "exact_cost"
    assert study_of({"objectives": ["accuracy", "macs", "latency"]}).sampler == "tpe"
    assert study_of({"sampler": "tpe"}).sampler == "tpe"


def test_a_study_file_wins_over_the_defaults_field_by_field() -> None:
    fields = {"seed": 3, "recipe": {"weight_decay": 0.2}, "settings": {"limits": {"max_params": 10**6}}}
    study = study_of(fields)
    assert study.seed == 3
    assert study.recipe == default_recipe("digits").model_copy(update={"weight_decay": 0.2})
    macs = default_settings(DIGITS).limits.max_macs
    assert study.settings.limits == Limits(max_params=10**6, max_macs=macs)


def test_a_search_of_the_embedded_images_ends_when_little_is_left_to_find_unless_it_has_an_end() -> None:
    photographs = dataclasses.replace(DIGITS, name="folder:/photographs")
    assert study_of().until == "converged"
    assert study_of(until="budget").until == study_of({"until": "budget"}).until == "budget"
    assert study_of(max_trials=9).until == study_of({"max_trials": 9}).until == "budget"
    assert study_of(info=photographs).until == "budget"


def test_flags_win_over_the_study_file_field_by_field() -> None:
    fields = {
        "seed": 3,
        "sampler": "random",
        "budget": "1gpu-day",
        "references": ["poolformer_s24"],
        "recipe": {"epochs": 9, "batch_size": 32, "weight_decay": 0.2},
        "settings": {"width_scale": 0.5, "limits": {"max_params": 10**7, "max_macs": 10**9}},
    }
    study = study_of(fields, seed=4, epochs=7, max_macs="0.5G", references="none", budget="2gpu-days")
    assert (study.seed, study.sampler, study.budget, study.references) == (4, "random", "2gpu-days", ())
    assert (study.recipe.epochs, study.recipe.batch_size, study.recipe.weight_decay) == (7, 32, 0.2)
    assert study.settings.width_scale == 0.5
    assert study.settings.limits == Limits(max_params=10**7, max_macs=5 * 10**8)


def test_a_study_is_split_as_asked_for_over_what_its_file_says() -> None:
    fields = {"splitting": {"images_per_class": 20, "seed": 3}, "data_fingerprint": "0123456789abcdef"}
    images = find_images(Request(data="digits", images_per_class=30), fields)
    assert images.splitting == Splitting(images_per_class=30, seed=3)
    info = open_dataset("digits", resolution=16, splitting=images.splitting).info
    study = study_of(fields, info=info, images_per_class=30)
    assert study.splitting == images.splitting
    assert study.data_fingerprint == info.fingerprint != DIGITS.fingerprint  # what was written is of other splits
    assert info.num_images["train"] == 300
    with pytest.raises(StudyError, match=r"^data: must hold what the study was made with"):
        study_of(fields | {"splitting": images.splitting.model_dump()}, info=info)


def test_a_study_of_before_splits_could_be_chosen_has_the_default_ones(tmp_path: Path) -> None:
    fields = study_of().model_dump(mode="json")
    del fields["splitting"]
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    assert Study.from_file(path) == study_of(fields) == study_of()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Splitting(val=0.2), r"splitting\.val: must be 0\.1, as the study in x has it, got 0\.2; another --name"),
        (Splitting(images_per_class=9), r"splitting\.images_per_class: must be None, as the study in x has it, got 9;"),
        (Splitting(seed=1), r"splitting\.seed: must be 0, as the study in x has it, got 1;"),
    ],
)
def test_a_study_does_not_go_on_with_other_splits(asked: Splitting, message: str) -> None:
    """Whose fingerprint is another one, too."""
    other = study_of(info=dataclasses.replace(DIGITS, splitting=asked, fingerprint="f" * 16))
    with pytest.raises(StudyError, match=f"^{message}"):
        other.check_continues(study_of(), Path("x"))


def test_a_written_study_gives_itself_again(tmp_path: Path) -> None:
    study = study_of(seed=5, epochs=2, max_macs="2M", max_trials=7, references="poolformer_s12")
    fields = yaml.safe_load(study.to_yaml())
    assert make_study(Request(), fields, DIGITS) == study
    file = tmp_path / "study.yaml"
    file.write_text(study.to_yaml(), encoding="utf-8")
    assert Study.from_file(file) == study


@pytest.mark.parametrize(
    ("fields", "asked", "expected"),
    [
        ({}, {}, ("digits", 16)),
        ({}, {"resolution": 48}, ("digits", 48)),
        ({"settings": {"resolution": 24}}, {}, ("digits", 24)),
        ({"settings": {"resolution": 24}}, {"resolution": 48}, ("digits", 48)),
        ({"data": "folder:/a"}, {"resolution": 96}, ("folder:/a", 96)),
        ({"data": "folder:/a"}, {"data": "digits"}, ("digits", 16)),
    ],
)
def test_data_and_resolution_come_from_flags_then_file_then_data(
    fields: dict[str, object], asked: dict[str, object], expected: tuple[str, int]
) -> None:
    assert find_images(dataclasses.replace(Request(), **asked), fields)[:2] == expected


def test_references_are_all_none_or_some() -> None:
    known = list(study_of().make_space().references())
    assert list(study_of(references="all").references) == known
    assert study_of(references="none").references == ()
    assert study_of(references="poolformer_s24, poolformer_s12").references == ("poolformer_s24", "poolformer_s12")
    assert study_of({"references": ["poolformer_m48"]}).references == ("poolformer_m48",)
    assert list(study_of({"references": ["poolformer_m48"]}, references="all").references) == known


@pytest.mark.parametrize(("epochs", "warmup_epochs"), [(1, 0), (3, 2), (5, 4), (6, 5), (100, 5)])
def test_few_epochs_shorten_the_warmup(epochs: int, warmup_epochs: int) -> None:
    """The folder's recipe has five epochs of warm-up."""
    assert default_recipe("folder:/data").warmup_epochs == 5
    recipe = study_of(info=large_images(), epochs=epochs).recipe
    assert (recipe.epochs, recipe.warmup_epochs) == (epochs, warmup_epochs)


def test_a_study_file_with_too_long_a_warmup_is_refused() -> None:
    with pytest.raises(StudyError, match=r"^recipe.warmup_epochs: must be less than epochs 3, got 3$"):
        study_of({"recipe": {"epochs": 3, "warmup_epochs": 3}})


def test_large_images_get_the_papers_setting() -> None:
    settings = default_settings(large_images())
    assert settings == SpaceSettings(resolution=224, num_classes=1000)
    assert settings.stem == Stem(kernel=7, stride=4, padding=2)
    assert settings.width_scale == 1


def test_small_images_get_a_finer_stem_and_slimmer_stages() -> None:
    settings = default_settings(large_images(resolution=64, num_classes=7))
    assert (settings.resolution, settings.num_classes) == (64, 7)
    assert settings.stem == Stem(kernel=3, stride=2, padding=1)
    assert settings.width_scale == 0.25
    costs = [count_cost(arch) for arch in get("hybrid_stages", settings).references().values()]
    most_params, most_macs = max(cost.params for cost in costs), max(cost.macs for cost in costs)
    assert settings.limits == Limits(max_params=most_params, max_macs=most_macs)  # nothing beyond hand-designed models


@pytest.mark.parametrize("name", ["convmixer", "isotropic"])
def test_a_space_whose_genes_say_the_stem_is_fitted_to_small_images_without_one(name: str) -> None:
    settings = default_settings(large_images(resolution=32, num_classes=10), name)
    assert (settings.stem, settings.width_scale) == (Stem(), 0.25)
    costs = [count_cost(arch) for arch in get(name, settings).references().values()]
    assert settings.limits == Limits(
        max_params=max(cost.params for cost in costs), max_macs=max(cost.macs for cost in costs)
    )
    assert study_of(space=name).settings == default_settings(DIGITS, name)
    for resolution in (32, 224):
        study = study_of(info=large_images(resolution=resolution), space=name)
        assert list(study.references) == list(study.make_space().references())
    assert study_of(info=large_images(), space=name).settings == SpaceSettings(resolution=224, num_classes=1000)


def test_a_union_is_fitted_to_small_images_with_a_stem_and_the_limits_of_all_its_hand_designed_models() -> None:
    settings = default_settings(large_images(resolution=32, num_classes=10), "hybrid_stages+convmixer")
    own = [
        default_settings(large_images(resolution=32, num_classes=10), name) for name in ("hybrid_stages", "convmixer")
    ]
    assert (settings.stem, settings.width_scale) == (own[0].stem, 0.25)
    assert settings.limits.max_macs == max(fitted.limits.max_macs or 0 for fitted in own)
    study = study_of(info=large_images(resolution=32), space="hybrid_stages+convmixer")
    assert {"poolformer_s12", "convmixer_256_8_p2_k5"} < set(study.references)


def test_the_default_space_for_digits_holds_its_hand_designed_models() -> None:
    study = study_of()
    references = get("hybrid_stages", study.settings).references()
    assert study.references
    assert all(study.settings.limits.allow(count_cost(references[name])) for name in study.references)


def test_a_folder_of_small_photographs_is_fitted_to_them(tmp_path: Path) -> None:
    """Seen at their own size, with the stem and widths of small images; flags win."""
    root = write_folder(tmp_path, train={"a": 9, "b": 9}, val={"a": 2, "b": 2}, size=(32, 32))
    images = find_images(Request(data=f"folder:{root}"), {})
    assert images.resolution == 32
    assert "median shorter side of 32 pixels" in images.reason
    info = open_dataset(images.data, resolution=images.resolution).info
    settings = study_of(info=info, data=images.data).settings
    assert (settings.stem.stride, settings.width_scale) == (2, 0.25)
    assert study_of(info=info, data=images.data, width_scale=0.5).settings.width_scale == 0.5
    assert find_images(Request(data=f"folder:{root}", resolution=224), {}).resolution == 224


@pytest.mark.parametrize(
    ("text", "count"),
    [("4500000", 4_500_000), ("12M", 12_000_000), ("1.8G", 1_800_000_000), ("600k", 600_000), (" 2M ", 2_000_000)],
)
def test_a_count_is_a_number_with_or_without_a_unit(text: str, count: int) -> None:
    assert parse_count("max_macs", text) == count


@pytest.mark.parametrize("text", ["", "0", "-5", "12 M", "12MB", "1e9", "M", "1,000", "0.0001k"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(StudyError, match=r"^max_macs: must be a number above 0, such as 12M or 1.8G, got '.*'$"):
        parse_count("max_macs", text)


JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.none()))
FIELDS = [*Study.model_fields, "sede"]
SECTIONS = {
    "settings": ["num_classes", "stem", "width_scale", "limits", "epochs"],
    "recipe": ["epochs", "batch_size", "warmup_epochs", "precision", "augmentation", "lr"],
}


@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), JUNK),
    sections=st.fixed_dictionaries(
        {}, optional={name: st.dictionaries(st.sampled_from(keys), JUNK) for name, keys in SECTIONS.items()}
    ),
    epochs=st.none() | st.integers(),
)
def test_whatever_a_study_file_holds_it_gives_a_study_or_one_line(
    fields: dict[str, object], sections: dict[str, object], epochs: int | None
) -> None:
    request = Request(budget="6cpu-minutes", epochs=epochs)
    merged = {**fields, **sections}
    said = "a study"
    try:
        find_images(request, merged)
        make_study(request, merged, DIGITS)
    except UserError as error:
        said = str(error)
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"recipe": 3}, r"^recipe: must be a mapping of fields, got 3$"),
        ({"settings": None}, r"^settings: must be a mapping of fields, got None$"),
        ({"settings": {"limits": 3}}, r"^settings.limits: must be a mapping of fields, got 3$"),
        ({"references": "poolformer_s12"}, r"^references: must be a list of names, got 'poolformer_s12'$"),
        ({"references": ["poolformer_s13"]}, r"^references: unknown name 'poolformer_s13'; known, nearest first: .*"),
        ({"settings": {"num_classes": 3}}, r"^settings.num_classes: must be 10, as in 'digits', got 3$"),
        ({"recipe": {"warmup_epochs": "x"}}, r"^recipe.warmup_epochs: input should be a valid integer.* got 'x'$"),
        (
            {"data_fingerprint": "abc"},
            r"^data: must hold what the study was made with \(fingerprint abc\), got 'digits'",
        ),
        (
            {"objectives": ["accuracy", "params", "latencey"]},
            r"^objectives: unknown name 'latencey'; known.*: latency,",
        ),
        ({"objectives": ["params", "macs"]}, r"^objectives: must be accuracy and at least one more, got params,macs$"),
        ({"objectives": ["accuracy"]}, r"^objectives: must be accuracy and at least one more, got accuracy$"),
        ({"objectives": ["accuracy"] * 2}, r"^objectives: must name each objective once, got accuracy,accuracy$"),
        (
            {"measured_limits": {"latency": 3.0}},
            r"^max_latency: must be a limit on a measured objective of the study, got 'latency'; add it: "
            r"--objectives accuracy,params,macs,latency$",
        ),
        (
            {"sampler": "tpee"},
            r"^sampler: unknown name 'tpee'; known, nearest first: tpe, .*reg.*$",
        ),
    ],
)
def test_a_field_that_breaks_a_rule_is_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        study_of(fields, epochs=2)


def test_a_resolution_that_is_no_whole_number_is_named() -> None:
    with pytest.raises(StudyError, match=r"^settings.resolution: must be a whole number of pixels, got 'big'$"):
        find_images(Request(), {"settings": {"resolution": "big"}})


def test_objectives_and_their_limits_come_from_flags() -> None:
    study = study_of(
        objectives="accuracy, latency,peak_memory", measured_limits={"latency": "3ms", "peak_memory": "1GiB"}
    )
    assert study.objectives == ("accuracy", "latency", "peak_memory")
    assert study.measured_limits == {"latency": 3.0, "peak_memory": 1024.0}


@pytest.mark.parametrize(
    ("max_latency", "limits", "message"),
    [
        ("3", [], r"^max_latency: must be a number above 0 and one of ms, us, s, as 3ms, got '3'$"),
        ("0ms", [], r"^max_latency: must be a number above 0"),
        (None, ["latency"], r"^limit: must be NAME=VALUE, such as peak_memory=200MiB, got 'latency'$"),
        ("3ms", ["latency=2ms"], r"^limit: must be given once for each objective, got two for latency$"),
        (None, ["params=3"], r"^limit: unknown name 'params'; known, nearest first: "),
    ],
)
def test_a_limit_that_cannot_be_read_is_named(max_latency: str | None, limits: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        study_of(objectives="accuracy,latency", measured_limits=parse_limits(max_latency, limits))


@pytest.mark.parametrize(
    ("fields", "asked", "message"),
    [
        ({}, {"epochs": 10**12}, "recipe.epochs: input should be less than or equal to 100000, got 1000000000000"),
        ({}, {"batch_size": 10**9}, "recipe.batch_size: input should be less than or equal to 65536, got 1000000000"),
        ({}, {"workers": 10**6}, "workers: input should be less than or equal to 10000, got 1000000"),
        ({}, {"cpus_per_trial": 10**6}, "cpus_per_trial: input should be less than or equal to 1024, got 1000000"),
        ({}, {"max_trials": 10**9}, "max_trials: input should be less than or equal to 10000000, got 1000000000"),
        ({}, {"seed": 2**64}, "seed: input should be less than 9223372036854775808, got 18446744073709551616"),
        ({}, {"max_macs": "9999999G"}, "max_macs: must be at most 1000000G, which is beyond any model, got '9999999G'"),
        ({}, {"max_params": "9" * 400}, "max_params: must be at most 1000000G"),
        ({}, {"max_macs": "٣M"}, "max_macs: must be a number above 0, such as 12M or 1.8G, got '٣M'"),
        ({"version": True}, {}, "version: must be a whole number, got True"),
        ({"seed": "3"}, {}, "seed: input should be a valid integer, got '3'"),
        ({"workers": True}, {}, "workers: input should be a valid integer, got True"),
        ({"recipe": {"epochs": "4"}}, {}, "recipe.epochs: input should be a valid integer, got '4'"),
        ({"recipe": {"weight_decay": True}}, {}, "recipe.weight_decay: input should be a valid number, got True"),
        ({"recipe": {"clip_grad": float("inf")}}, {}, "recipe.clip_grad: input should be a finite number, got inf"),
        ({"settings": {"resolution": 10**5}}, {}, "settings.resolution: input should be less than or equal to 8192"),
        ({"settings": {"width_scale": "0.5"}}, {}, "settings.width_scale: input should be a valid number, got '0.5'"),
        ({"gpus_per_trial": True}, {}, "gpus_per_trial: must be auto, or a part of one GPU from 0.001 to 1, got True"),
    ],
)
def test_what_no_machine_could_do_and_what_has_another_type_is_refused(
    fields: dict[str, object], asked: dict[str, object], message: str
) -> None:
    with pytest.raises(StudyError, match=f"^{re.escape(message)}"):
        study_of(fields, **asked)


def test_a_resolution_of_yes_is_no_number_of_pixels() -> None:
    with pytest.raises(StudyError, match=r"^settings.resolution: must be a whole number of pixels, got True$"):
        find_images(Request(), {"settings": {"resolution": True}})


def test_images_larger_than_any_photograph_are_refused() -> None:
    with pytest.raises(UserError, match=r"^resolution: must be at most 8192 pixels, got 100000$"):
        open_dataset("digits", resolution=100_000)
