"""The recipes that have a name, held to the figures of their papers and scripts.

Figures are those of each file's header; learning rates are written out here by their formulas.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

from metaformer import build, zoo
from metaformer.zoo.images import PUBLISHED
from nas.data import check_recipe, default_recipe
from nas.study.recipe import Augmentation, Recipe
from nas.study.recipe_files import RecipeError, find_recipe, names
from nas.training.optimisation import make_ema, make_optimizer, make_schedule, with_drop_path

FOLDER = Path(__file__).parents[3] / "nas" / "study" / "recipes"
ALL = (
    *("caformer", "cifar10_proxy", "convformer", "convmixer", "convmixer_cifar10", "deit", "digits"),
    *("imagenet_proxy", "poolformer", "pvt", "resmlp", "t2t_vit"),
)
STEPS = 10  # of an epoch, in tests of the schedules
RAND = "rand-m9-mstd0.5-inc1"


class Figures(NamedTuple):
    """What a paper or script says; the defaults are those that most of them share."""

    model: str  # of the zoo, trained by it
    peak: float  # learning rate, at the batch
    batch: int
    drop_path: float  # of the model's last block
    epochs: int = 300
    optimizer: str = "AdamW"
    eps: float = 1e-8
    weight_decay: float = 0.05
    warmup: int = 5
    ema: float | None = None
    clip: float | None = None
    mixup: float = 0.8
    cutmix: float = 1.0
    smoothing: float = 0.1
    rand_augment: str = RAND
    erasing: float = 0.25
    jitter: float = 0.4
    repeats: int = 1
    crop: tuple[float, float] = (0.08, 1.0)
    interpolation: str = "random"
    no_decay: frozenset[str] = frozenset({"vectors"})


BY_NAME = frozenset({"vectors", "position_embedding", "class_token"})
PAPERS = {
    # arXiv:2111.11418, Table 6: rate 1e-3 times batch / 1024
    "poolformer": Figures("poolformer_s12", 1e-3, 1024, 0.1),
    # arXiv:2210.13452, scripts
    "convformer": Figures("convformer_s18", 4e-3, 4096, 0.2, warmup=20),
    "caformer": Figures("caformer_s18", 8e-3, 4096, 0.15, optimizer="Lamb", eps=1e-6, warmup=20),
    # arXiv:2012.12877, Table 9, and main.py: rate 5e-4 times batch / 512
    "deit": Figures(
        *("deit_small_patch16_224", 5e-4 * 2, 1024, 0.1),
        ema=0.99996,
        jitter=0.3,
        repeats=3,
        interpolation="bicubic",
        no_decay=BY_NAME,
    ),
    # main.py of arXiv:2102.12122, in which the class token alone is exempt by name
    "pvt": Figures(
        *("pvt_medium", 5e-4 * 2, 1024, 0.3),
        repeats=3,
        interpolation="bicubic",
        no_decay=frozenset({"vectors", "class_token"}),
    ),
    # arXiv:2105.03404, section 3, the rest as DeiT
    "resmlp": Figures(
        *("resmlp_12_224", 5e-3, 1024, 0.1),
        epochs=400,
        optimizer="Lamb",
        eps=1e-6,
        weight_decay=0.2,
        ema=0.99996,
        jitter=0.3,
        repeats=3,
        interpolation="bicubic",
    ),
    # main.py of arXiv:2101.11986
    "t2t_vit": Figures(
        *("t2t_vit_14", 5e-4, 512, 0.1),
        epochs=310,
        warmup=10,
        ema=0.99996,
        no_decay=frozenset({"vectors", "class_token"}),
    ),
    # README of arXiv:2201.09792's repository
    "convmixer": Figures(
        *("convmixer_1536_20", 0.01, 640, 0.0),
        epochs=150,
        eps=1e-3,
        weight_decay=2e-5,
        warmup=0,
        clip=1.0,
        mixup=0.5,
        cutmix=0.5,
    ),
    # README and train.py of locuslab/convmixer-cifar10
    "convmixer_cifar10": Figures(
        *("convmixer_256_8_p2_k5", 0.05, 512, 0.0),
        epochs=25,
        weight_decay=0.005,
        warmup=0,
        mixup=0,
        cutmix=0,
        smoothing=0,
        rand_augment="torchvision-m12-n2",
        erasing=0,
        jitter=0,
        crop=(1.0, 1.0),
        interpolation="bilinear",
        no_decay=frozenset(),
    ),
}


def rate_at(recipe: Recipe, epoch: float) -> float:
    """The learning rate of the step that begins so many epochs after the start."""
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = make_schedule(optimizer, recipe, STEPS)
    schedule.step_update(round(epoch * STEPS))
    return float(optimizer.param_groups[0]["lr"])


def test_these_are_the_recipes() -> None:
    assert tuple(names()) == ALL
    assert {path.stem for path in FOLDER.iterdir()} == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_file_has_a_header_with_its_source_and_spells_out_every_field(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    title, source = text.splitlines()[:2]
    assert title.startswith("# ")
    assert source.startswith("# Source: ")
    fields = yaml.safe_load(text)
    assert list(fields) == list(Recipe.model_fields)
    assert list(fields["augmentation"]) == list(Augmentation.model_fields)
    assert find_recipe(name).model_dump(mode="json") == fields


def test_a_proxy_says_that_it_has_not_been_measured() -> None:
    text = " ".join((FOLDER / "imagenet_proxy.yaml").read_text(encoding="utf-8").replace("#", " ").split())
    assert "These values are sensible, not measured" in text


@pytest.mark.parametrize("name", PAPERS)
def test_figures_are_the_papers(name: str) -> None:
    recipe, said = find_recipe(name), PAPERS[name]
    assert (recipe.epochs, recipe.batch_size, recipe.warmup_epochs) == (said.epochs, said.batch, said.warmup)
    assert recipe.peak_lr == pytest.approx(said.peak, rel=1e-12)
    assert (recipe.ema_decay, recipe.clip_grad, recipe.label_smoothing) == (said.ema, said.clip, said.smoothing)
    augmentation = recipe.augmentation
    assert augmentation == Augmentation(
        crop_scale=said.crop,
        train_interpolation=said.interpolation,
        flip=0.5,
        color_jitter=said.jitter,
        rand_augment=said.rand_augment,
        random_erasing=said.erasing,
        mixup=said.mixup,
        cutmix=said.cutmix,
        repeats=said.repeats,
        eval_crop=PUBLISHED[said.model].crop_pct,
    )


@pytest.mark.parametrize("name", PAPERS)
def test_optimizer_and_what_decays_are_the_papers(name: str) -> None:
    recipe, said = find_recipe(name), PAPERS[name]
    with torch.device("meta"):
        model = build(zoo.get(said.model))
    optimizer = make_optimizer(model, recipe)
    assert type(optimizer).__name__ == said.optimizer
    decays = {}
    for group in optimizer.param_groups:
        assert (group["eps"], group["betas"]) == (said.eps, (0.9, 0.999))
        decays |= {id(parameter): group["weight_decay"] for parameter in group["params"]}
    for path, parameter in model.named_parameters():
        last = path.rpartition(".")[2]
        named = {"pos_embed": "position_embedding", "cls_token": "class_token"}.get(last)
        kind = named or ("vectors" if parameter.ndim <= 1 else "matrix")
        assert decays[id(parameter)] == (0 if kind in said.no_decay else said.weight_decay), path


@pytest.mark.parametrize("name", PAPERS)
def test_drop_path_is_the_papers(name: str) -> None:
    """It grows linearly with depth; ResMLP's is the same everywhere."""
    said = PAPERS[name]
    arch = with_drop_path(zoo.get(said.model), find_recipe(name))
    with torch.device("meta"):
        model = build(arch)
    rates = [
        float(getattr(module, "drop_prob", 0.0))
        for path, module in model.named_modules()
        if path.endswith("mixer.drop_path")
    ]
    assert len(rates) == arch.depth
    parts = [1.0 if name == "resmlp" else block / (arch.depth - 1) for block in range(arch.depth)]
    assert rates == pytest.approx([said.drop_path * part for part in parts])


@pytest.mark.parametrize("name", [name for name, said in PAPERS.items() if said.warmup])
def test_cosine_rates_are_the_papers(name: str) -> None:
    """Warm-up from 1e-6, one cosine to 1e-5 over 300 epochs (ResMLP: 400), then the final rate."""
    recipe, said = find_recipe(name), PAPERS[name]
    total = 400 if name == "resmlp" else 300

    def cosine(epoch: float) -> float:
        return 1e-5 + (said.peak - 1e-5) * (1 + math.cos(math.pi * epoch / total)) / 2

    expected = {
        0.0: 1e-6,
        said.warmup / 2: (1e-6 + said.peak) / 2,
        float(said.warmup): cosine(said.warmup),
        total / 2: (1e-5 + said.peak) / 2,
        total * 3 / 4: 1e-5 + (said.peak - 1e-5) * (1 - math.sqrt(0.5)) / 2,
        total - 1 / STEPS: cosine(total - 1 / STEPS),
        recipe.epochs - 1.0: 1e-5 if recipe.epochs > total else cosine(total - 1),
    }
    for epoch, rate in expected.items():
        assert rate_at(recipe, epoch) == pytest.approx(rate, rel=1e-9), epoch


@pytest.mark.parametrize("name", ["convmixer", "convmixer_cifar10"])
def test_convmixers_rates_are_those_of_its_scripts(name: str) -> None:
    """Linear through 0, the peak at 2/5, a twentieth of it at 4/5, and 0 at the end of the last step."""
    recipe, said = find_recipe(name), PAPERS[name]
    step = 1 / STEPS
    for part, factor in {0.2: 0.5, 0.4: 1.0, 0.6: (1 + 1 / 20) / 2, 0.8: 1 / 20, 0.9: 1 / 40, 1.0: 0.0}.items():
        found = rate_at(recipe, part * said.epochs - step)
        assert found == pytest.approx(said.peak * factor, rel=1e-9, abs=1e-12), part
    assert rate_at(recipe, 0) == pytest.approx(said.peak * step / (said.epochs * 0.4))


@pytest.mark.parametrize("name", PAPERS)
def test_averages_are_the_papers(name: str) -> None:
    said, ema = PAPERS[name], make_ema(torch.nn.Linear(1, 1), find_recipe(name))
    assert (None if ema is None else ema.decay) == said.ema


def test_the_digits_recipe_is_the_one_that_was_registered_in_version_0_1() -> None:
    plain = Augmentation(
        crop_scale=(1.0, 1.0), flip=0, rand_augment=None, random_erasing=0, mixup=0, cutmix=0, shift=1, eval_crop=1.0
    )
    before = Recipe(epochs=20, batch_size=128, lr_per_1024=0.2, warmup_epochs=3, augmentation=plain)
    assert find_recipe("digits") == default_recipe("digits") == before


def test_a_folders_default_is_poolformers_in_30_epochs() -> None:
    """With the paper's rate for the smaller batch, and bicubic crops as before; jitter has no effect beside it."""
    poolformer = find_recipe("poolformer")
    augmentation = poolformer.augmentation.model_copy(update={"train_interpolation": "bicubic", "color_jitter": 0.0})
    changes = {"epochs": 30, "batch_size": 512, "augmentation": augmentation}
    assert default_recipe("folder:/data") == poolformer.model_copy(update=changes) == Recipe()


@pytest.mark.parametrize("name", ALL)
def test_folders_follow_every_recipe_that_neither_repeats_nor_shifts(name: str) -> None:
    recipe = find_recipe(name)
    if recipe.augmentation.repeats > 1 or recipe.augmentation.shift:
        with pytest.raises(ValueError, match=r"augmentation\.(repeats|shift): must be "):
            check_recipe("folder:/data", recipe)
        recipe = recipe.model_copy(
            update={"augmentation": recipe.augmentation.model_copy(update={"repeats": 1, "shift": 0})}
        )
    check_recipe("folder:/data", recipe)


def test_a_file_of_ones_own_may_leave_fields_out(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("optimizer: lamb\nlr_per_1024: 4e-3\naugmentation: {mixup: 0.2}\n", encoding="utf-8")
    expected = Recipe(optimizer="lamb", lr_per_1024=4e-3, augmentation=Augmentation(mixup=0.2))
    assert find_recipe(str(file)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "epoch: unknown name 'epoch'; known, nearest first: epochs, "),
        ("augmentation: {mixop: 1}", "augmentation.mixop: unknown name 'mixop'; known, nearest first: mixup, "),
        ("epochs: 3", "warmup_epochs: must be less than epochs 3, got 5"),
        ("epochs: '3'", "epochs: input should be a valid integer, got '3'"),
        ("optimizer: adam", "optimizer: input should be 'adamw', 'lamb' or 'sgd', got 'adam'"),
        ("betas: [0.9, 1.0]", "betas.1: input should be less than 1, got 1.0"),
        ("lr_points: [[0, 1], [0.5]]", "lr_points.1.1: "),
        ("[]", "must be a mapping of fields, got list"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        find_recipe(str(file))
    assert str(caught.value).startswith(f"recipe {file}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("poolfrmer", "recipe: unknown name 'poolfrmer'; known, nearest first: poolformer, "),
        ("nowhere.yaml", "recipe: must be a readable YAML file, got 'nowhere.yaml'"),
        ("", "recipe: unknown name ''; known, nearest first: "),
        (3, "recipe: must be a name or a path, got 3"),
    ],
)
def test_a_recipe_that_is_not_there_is_refused_with_the_nearest(source: Any, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        find_recipe(source)
    assert str(caught.value).startswith(message)
