"""The peer: what a researcher puts together from stock Ray Tune, OptunaSearch and timm; nothing of ours is imported.

Command:   python -m benchmarks.search_rate.peer PLAN.json, as `benchmarks.search_rate` runs it
Hardware:  one CPU core for each trial at a time
Time:      by the plan
Expected:  a line of JSON for each trial: its model, parameters, accuracy, and when it ended

A function trainable, whose actors stay for the next trial (`reuse_actors`), since one that starts for each trial takes
seconds. A trial says what it found once, at its end, and writes no checkpoint. Ray lowers its workers' priority unless
it is told not to (RAY_worker_niceness=0, in the environment). OptunaSearch is given the models as the first points to
evaluate, so that it repeats none.

B batch, C channels, H height, W width, K classes.
"""

import itertools
import json
import sys
import tempfile
import time
from functools import partialmethod
from pathlib import Path
from typing import Literal, TypedDict

import ray
import torch
from ray import tune
from ray.tune.search.optuna import OptunaSearch
from timm.data import Mixup, create_dataset, create_loader
from timm.layers import GroupNorm1, LayerNorm, LayerNorm2d
from timm.models.metaformer import Attention, MetaFormer, Pooling
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nas.data.augment import mend

NORMS: dict[str, type[nn.Module]] = {
    "GroupNorm1": GroupNorm1,
    "LayerNorm": LayerNorm,
    "LayerNorm2d": LayerNorm2d,
    "BatchNorm2d": nn.BatchNorm2d,
}


class Model(TypedDict):
    """Arguments of timm's MetaFormer, with classes by name; `mixers` and `norms` have one for each stage."""

    depths: list[int]
    dims: list[int]
    mixers: list[str]  # Pooling3, Pooling5, ..., Attention or Identity
    norms: list[str]
    attention: dict[str, int | bool]  # arguments of timm's Attention
    layer_scale: float
    stem: dict[str, int]  # arguments of its convolution
    drop_path: float


class Recipe(TypedDict):
    """How every model is trained: AdamW, a cosine by steps, random resized crop, and what timm does to an image."""

    epochs: int
    batch_size: int
    peak_lr: float
    weight_decay: float
    warmup_epochs: int
    warmup_lr: float
    final_lr: float
    label_smoothing: float
    clip_grad: float | None
    crop_scale: list[float]
    interpolation: str
    flip: float
    color_jitter: float
    auto_augment: str | None  # in timm's notation
    random_erasing: float
    mixup: float
    cutmix: float
    eval_crop: float


class Plan(TypedDict):
    """A whole search."""

    data: str  # a folder with train/CLASS/* and val/CLASS/*
    resolution: int  # side in pixels
    num_classes: int
    models: dict[str, Model]
    recipe: Recipe
    num_at_a_time: int  # trials
    num_loaders: int  # processes of each trial that read images; 0: the trial itself
    seed: int


class Done(TypedDict):
    """A trial that has ended."""

    model: str
    params: int
    val_accuracy: float
    ended: float  # seconds since 1970


def mixer_class(name: str) -> type[nn.Module]:
    if name == "Attention":
        return Attention
    if name == "Identity":
        return nn.Identity
    size = int(name.removeprefix("Pooling"))
    return type(name, (Pooling,), {"__init__": partialmethod(Pooling.__init__, size)})


def make_model(spec: Model, *, num_classes: int) -> MetaFormer:
    """timm's MetaFormer as its own PoolFormer has it, with a stem for small images instead of 7 x 7 by 4."""
    model = MetaFormer(
        num_classes=num_classes,
        depths=tuple(spec["depths"]),
        dims=tuple(spec["dims"]),
        token_mixers=[mixer_class(name) for name in spec["mixers"]],
        mlp_act=nn.GELU,
        mlp_bias=True,
        drop_path_rate=spec["drop_path"],
        layer_scale_init_values=spec["layer_scale"],
        res_scale_init_values=(None,) * len(spec["depths"]),
        downsample_norm=None,
        norm_layers=[NORMS[name] for name in spec["norms"]],
        use_mlp_head=False,
        **spec["attention"],  # type: ignore[arg-type]  # timm hands them to the mixers
    )
    model.stem.conv = nn.Conv2d(3, spec["dims"][0], **spec["stem"])  # type: ignore[arg-type]  # whole numbers all
    nn.init.trunc_normal_(model.stem.conv.weight, std=0.02)  # as timm has it
    return model


def make_loader(plan: Plan, split: Literal["train", "val"]) -> "DataLoader[tuple[Tensor, Tensor]]":
    """timm's loader over the folder's JPEGs."""
    recipe = plan["recipe"]
    loader: DataLoader[tuple[Tensor, Tensor]] = create_loader(
        create_dataset("", root=plan["data"], split=split),
        input_size=(3, plan["resolution"], plan["resolution"]),
        batch_size=recipe["batch_size"],
        is_training=split == "train",
        scale=(recipe["crop_scale"][0], recipe["crop_scale"][1]),
        hflip=recipe["flip"],
        color_jitter=recipe["color_jitter"],
        auto_augment=recipe["auto_augment"],
        re_prob=recipe["random_erasing"],
        re_mode="pixel",
        interpolation=recipe["interpolation"] if split == "train" else "bicubic",
        crop_pct=recipe["eval_crop"],
        num_workers=plan["num_loaders"],
        persistent_workers=plan["num_loaders"] > 0,
        device=torch.device("cpu"),
    )
    mend(loader.dataset.transform)  # timm 1.0.31 asks Pillow 13 for what it refuses
    return loader


def make_mix(recipe: Recipe, num_classes: int) -> Mixup | None:
    """timm's Mixup and CutMix, where the recipe mixes."""
    if not recipe["mixup"] and not recipe["cutmix"]:
        return None
    return Mixup(  # type: ignore[no-untyped-call]  # timm's, without types
        recipe["mixup"], recipe["cutmix"], label_smoothing=recipe["label_smoothing"], num_classes=num_classes
    )


def make_optimizer(model: nn.Module, recipe: Recipe, *, num_steps: int) -> tuple[torch.optim.Optimizer, Scheduler]:
    """timm's AdamW, in one kernel, and timm's cosine with its warm-up.

    Args:
        num_steps: Of an epoch.
    """
    optimizer = create_optimizer_v2(
        model, opt="adamw", lr=recipe["peak_lr"], weight_decay=recipe["weight_decay"], fused=True
    )
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=recipe["epochs"],
        warmup_epochs=recipe["warmup_epochs"],
        warmup_lr=recipe["warmup_lr"],
        min_lr=recipe["final_lr"],
        step_on_epochs=False,
        updates_per_epoch=num_steps,
    )
    return optimizer, schedule


def train_epoch(
    model: nn.Module,
    loader: "DataLoader[tuple[Tensor, Tensor]]",
    recipe: Recipe,
    mix: Mixup | None,
    optimizer: torch.optim.Optimizer,
) -> None:
    """One epoch; the learning rates are those of the scheduler, a hook of the optimizer."""
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.0 if mix else recipe["label_smoothing"])  # mixed ones come smoothed
    model.train()
    for images in loader:
        x_BCHW, y = mix(*images) if mix else images
        optimizer.zero_grad()
        loss_of(model(x_BCHW.contiguous(memory_format=torch.channels_last)), y).backward()
        if recipe["clip_grad"] is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe["clip_grad"])
        optimizer.step()


@torch.inference_mode()
def accuracy(model: nn.Module, loader: "DataLoader[tuple[Tensor, Tensor]]") -> float:
    """Accuracy in [0, 1]."""
    model.eval()
    num_right, num_seen = 0, 0
    for x_BCHW, y_B in loader:
        logits_BK = model(x_BCHW.contiguous(memory_format=torch.channels_last))
        num_right += int((logits_BK.argmax(1) == y_B).sum())
        num_seen += len(y_B)
    return num_right / num_seen


def train_model(plan: Plan, name: str) -> Done:
    """Train a model by the plan's recipe, and evaluate it after every epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(plan["seed"])
    recipe = plan["recipe"]
    model = make_model(plan["models"][name], num_classes=plan["num_classes"]).to(memory_format=torch.channels_last)
    train, val = make_loader(plan, "train"), make_loader(plan, "val")
    mix = make_mix(recipe, plan["num_classes"])
    optimizer, schedule = make_optimizer(model, recipe, num_steps=len(train))
    steps = itertools.count(1)
    optimizer.register_step_post_hook(lambda *_: schedule.step_update(next(steps)))
    found = 0.0
    for _ in range(recipe["epochs"]):
        train_epoch(model, train, recipe, mix, optimizer)
        found = accuracy(model, val)
    params = sum(parameter.numel() for parameter in model.parameters())
    return Done(model=name, params=params, val_accuracy=found, ended=time.time())


def trainable(config: dict[str, str], plan: Plan) -> None:
    tune.report(dict(train_model(plan, config["model"])))


def search(plan: Plan, folder: Path) -> list[Done]:
    """The trials of a search over the plan's models.

    Raises:
        RuntimeError: A trial failed.
    """
    names = list(plan["models"])
    ray.init("local", num_cpus=plan["num_at_a_time"], include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, plan=plan), {"cpu": 1}),
        param_space={"model": tune.choice(names)},
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                metric=["val_accuracy", "params"],
                mode=["max", "min"],
                points_to_evaluate=[{"model": name} for name in names],
            ),
            num_samples=len(names),
            max_concurrent_trials=plan["num_at_a_time"],
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    results = tuner.fit()
    ray.shutdown()
    for error in results.errors:
        raise RuntimeError(f"trial: must end, got {error}")
    found = (results[place].metrics or {} for place in range(len(results)))
    return [Done(**{key: metrics[key] for key in Done.__annotations__}) for metrics in found]  # type: ignore[typeddict-item]  # they are its keys


def main() -> None:
    plan: Plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        trials = search(plan, Path(folder))
    for done in trials:
        sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    main()
