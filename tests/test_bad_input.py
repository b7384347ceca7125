"""A table of bad inputs to every program: each is answered by one short line and code 2, and nothing is written.

The programs run in this process from their arguments on. All of this is refused before Ray starts: a search that asks
for workers fails its test.
"""

import importlib.util
import os
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import metaformer
import search_spaces
from metaformer import __main__ as models
from metaformer import cli, register_mixer, zoo
from metaformer.checkpoints import from_ours, to_ours
from metaformer.checkpoints.files import read_checkpoint
from metaformer.errors import UserError
from nas.compare import compare
from nas.dashboard import dashboard
from nas.data import open_dataset
from nas.evaluate import evaluate
from nas.explain import explain
from nas.export import export
from nas.finish import finish
from nas.prepare import prepare
from nas.record.run_folder import check_name, open_run
from nas.record.storage import open_storage
from nas.replay import replay
from nas.report import report
from nas.search import search
from nas.session.proposers import register_proposer
from nas.status import status
from nas.study.budget import Budget, parse_duration
from nas.study.objectives import register_objective
from nas.study.request import parse_count
from nas.study.study import Study
from nas.table import table
from nas.train import train
from nas.transfer import transfer
from search_spaces.space import register_space
from tests.nas.finals.runs import make_search
from tests.nas.images import write_folder
from tests.nas.runs import make_run, make_study
from tests.nas.transfer.shapes import instances, write_ade, write_coco, write_instances
from tests.thorough import every_third_row

PROGRAMS: dict[str, tuple[Callable[..., None], ...]] = {
    "search": (search,),
    "finish": (finish,),
    "evaluate": (evaluate,),
    "explain": (explain,),
    "replay": (replay,),
    "report": (report,),
    "export": (export,),
    "dashboard": (dashboard,),
    "status": (status,),
    "compare": (compare,),
    "prepare": (prepare,),
    "table": (table,),
    "train": (train,),
    "transfer": (transfer,),
    "metaformer": (models.list_models, models.show, models.cost, models.compare, models.validate),
}
LONG = "x" * 5000
ONE_STAGE = ("convmixer", "isotropic", "t2t_vit")  # spaces without a stem
BUDGET = ("--budget", "6cpu-minutes")


class Bad(NamedTuple):
    """What is typed, and how the answer begins."""

    program: str
    arguments: tuple[str, ...]
    field: str

    def __str__(self) -> str:
        return f"{self.program} {' '.join(self.arguments)}"[:80]


def bad(program: str, field: str, *lines: str | tuple[str, ...]) -> list[Bad]:
    """Inputs that are answered by a line about the same field; a text is split at its spaces."""
    return [Bad(program, tuple(line.split()) if isinstance(line, str) else line, field) for line in lines]


def options(field: str, *values: str, before: tuple[str, ...] = BUDGET, name: str | None = None) -> list[Bad]:
    """Values of an option of a search that are all refused."""
    option = name or "--" + field.rpartition(".")[2].replace("_", "-")
    return [Bad("search", (*before, f"{option}={value}"), field) for value in values]


# Trackers whose package is not here.
MISSING_TRACKERS = tuple(name for name in ("tensorboard", "wandb", "mlflow") if importlib.util.find_spec(name) is None)

# Values that a type refuses wherever a whole number above 0 is asked for.
NO_NUMBER = ("x", "", "1.5", "1e3", "nan", "inf", "0x10", "--", "1 2", "9" * 5000, "1" + "\x1b[31m")

SEARCH = [
    *options(
        "budget",
        *("", " ", "0cpu-minutes", "-1cpu-minutes", "6", "6cpu", "cpu-minutes", "6 cpu minutes", "6tpu-days"),
        *("6cpu-weeks", "٣cpu-minutes", "３cpu-minutes", "1e3cpu-minutes", "nancpu-minutes", "infgpu-days"),
        *("9" * 400 + "gpu-days", LONG, "6cpu-minutes\x1b[31m", "[/b]", "6,5cpu-minutes", "0x6cpu-minutes"),
        before=(),
    ),
    *options("cache_limit", "1", "GiB", "0GiB", "-1GiB", "1GB", before=(*BUDGET, "--cache", "copies")),
    *options("deadline", "0h", "-1h", "12", "h", "12w", "999999999d", "36501d", "٣h", "1e9s", "nanh", LONG, "1h30m"),
    *options("recipe.epochs", "0", "-1", "1000000000000", "100001"),
    *options("recipe.batch_size", "0", "-1", "65537", "1000000000000"),
    *options("epochs", *NO_NUMBER),
    *options("batch_size", *NO_NUMBER),
    *options("resolution", *NO_NUMBER, "-1", "7", "513", "8192", "8193", "100000", "1000000000000"),
    *options("workers", *NO_NUMBER, "0", "-1", "10001", "1000000000"),
    *options("cpus_per_trial", *NO_NUMBER, "0", "-1", "1025"),
    *options("loaders", *NO_NUMBER, "-1", "257", "100000"),
    *options("max_trials", *NO_NUMBER, "0", "-1", "10000000000"),
    *options("seed", "x", "1.5", "nan", str(2**63), str(-(2**64))),
    *options("gpus_per_trial", "0", "-1", "2", "nan", "half", "inf", LONG, "0.5"),
    *options("settings.width_scale", "0", "-1", "2", "nan", "inf", "0.3"),
    *options("width_scale", "x", ""),
    *options("max_params", "", "0", "-1", "x", "12T", "1e6", "٣M", "nan", "1000001G", "9" * 400, LONG),
    *options("max_macs", "", "0", "-1", "x", "12T", "1e6", "٣M", "inf", "99999999G", "9" * 400, LONG),
    *options("max_latency", "0ms", "-1ms", "3", "ms", "٣ms", "3 parsecs", "nanms", LONG),
    *options("limit", "", "latency", "=3ms", "latency=", "params=3", "nothing=1", LONG),
    *options("objectives", "", "accuracy,", "accuracy,nothing", "params", "accuracy,accuracy", LONG),
    *options("dataset", "nothing", "digits:x", "folder:", "folder:nowhere", "no.module", name="--data"),
    *options("dataset", "folder:one", "folder:arch.yaml", "folder:/dev/null", name="--data"),
    *options("dataset", "prepared", "prepared:", "prepared:nowhere", "prepared:photos", name="--data"),
    *options("dataset", "torch", "torch/", "torch:cifar10", "torch/cifra", "torch/cifar10:photos", name="--data"),
    *options("dataset", "wds/", "wds/photos/train.tar", "wds/photos", "hfds/", "hfds/nowhere", name="--data"),
    *options("references", "nothing", "poolformer_s12,nothing", LONG, "[/b]"),
    *options("sampler", "nothing", "", LONG, "[bold]"),
    *options("stopper", "nothing", "", LONG),
    *options(
        "space", "nothing", "", "hybrid_stages\x07", "convmixer+", "+", "convmixer+nothing", "convmixer+convmixer"
    ),
    *bad("search", "resolution", f"{' '.join(BUDGET)} --space convmixer --resolution 37"),  # a prime
    *bad("search", "resolution", f"{' '.join(BUDGET)} --space isotropic --resolution 67"),
    *bad("search", "resolution", f"{' '.join(BUDGET)} --space t2t_vit --resolution 37"),
    *bad("search", "settings.width_scale", f"{' '.join(BUDGET)} --space t2t_vit --width-scale 0.03125"),
    *bad("search", "max_macs", f"{' '.join(BUDGET)} --space convmixer --max-macs 1k"),
    *bad("search", "max_params", f"{' '.join(BUDGET)} --space isotropic --max-params 10"),
    *bad("search", "resolution", f"{' '.join(BUDGET)} --space hybrid_stages+convmixer --resolution 37"),
    *bad("search", "max_params", f"{' '.join(BUDGET)} --space hybrid_stages+convmixer --max-params 10"),
    *bad("search", "settings.stem", *(f"{' '.join(BUDGET)} --space {name} --study stem.yaml" for name in ONE_STAGE)),
    *bad(
        "search",
        "settings.width_scale",
        *(f"{' '.join(BUDGET)} --space {name} --width-scale 0.3" for name in ONE_STAGE),
    ),
    *bad("search", "references", f"{' '.join(BUDGET)} --space convmixer --references poolformer_s12"),
    *bad("search", "sampler", f"{' '.join(BUDGET)} --sampler exact_cost --objectives accuracy,latency"),
    *options("bad_images", "nothing", "", LONG),
    *options("checkpoint_every", "0s", "-1m", "5", "often", "Never", "", "nans", LONG),
    *options("splitting.val", "0", "1", "-0.1", "1.5", "nan", "inf", "-inf", "1e400", name="--val-fraction"),
    *options("val_fraction", "x", "", "10%", LONG),
    *options("splitting.images_per_class", "0", "-1", "10000000000"),
    *options("images_per_class", *NO_NUMBER),
    *options("splitting.seed", "-1", str(2**32), name="--split-seed"),
    *options("split_seed", *NO_NUMBER),
    *bad("search", "splitting.val", f"{' '.join(BUDGET)} --data digits --val-fraction 0.2"),  # a fifth in any case
    *bad("search", "splitting.val", f"{' '.join(BUDGET)} --data folder:photos --val-fraction 0.9"),  # 2 of 2 images
    *bad("search", "splitting.seed", "--name good --recipe digits --split-seed 3"),  # than the run has
    *bad("search", "splitting.images_per_class", "--name good --recipe digits --images-per-class 3"),
    *options(
        "recipe", "poolfrmer", "", "nowhere.yaml", "binary.yaml", "pipe.yaml", "/dev/zero", "one", LONG, "\x1b[31m"
    ),
    *options(
        "recipe", *(f"{name}.yaml" for name in ("bomb", "deep", "list", "empty", "twice", "code", "huge", "arch"))
    ),
    *options("recipe", "few_epochs.yaml", "wrong_key.yaml", "wrong_value.yaml"),
    *options("augmentation.crop_scale", "poolformer", "imagenet_proxy", name="--recipe"),  # than digits can follow
    *options(
        "set", "", "epochs=3", "recipe=3", "recipe.epochs", "recipe.=3", "recipe.epochs=", "data.x=1", name="--set"
    ),
    *options("set", LONG, "recipe." + LONG, "recipe.a.b.c.d=1", "recipe.epochs=[", "recipe.a=1\nb: 2", name="--set"),
    *options("set", "recipe.epochs=" + "[" * 300, "recipe.epochs=!!python/name:os.system", name="--set"),
    *options("recipe.epoch:", "recipe.epoch=3", name="--set"),
    *options("recipe.augmentation.mixop", "recipe.augmentation.mixop=3", name="--set"),
    *options("recipe.epochs", *(f"recipe.epochs={x}" for x in ("0", "3.5", "x", "'3'", "yes", "[3]")), name="--set"),
    *options("recipe.warmup_epochs", "recipe.epochs=3", "recipe.warmup_epochs=20", name="--set"),
    *options("recipe.cooldown_epochs", "recipe.cooldown_epochs=17", name="--set"),
    *options("recipe.augmentation", "recipe.augmentation=3", name="--set"),
    *options("recipe.augmentation.flip", "recipe.augmentation.flip=.nan", "recipe.augmentation.flip=2", name="--set"),
    *options("recipe.optimizer", "recipe.optimizer=adam", "recipe.optimizer=null", name="--set"),
    *options("recipe.betas", "recipe.betas=0.9", "recipe.betas=[0.9, 1.0]", "recipe.betas=[0.9]", name="--set"),
    *options("recipe.momentum", "recipe.momentum=0.5", name="--set"),
    *options("recipe.lr_points", "recipe.schedule=step", "recipe.lr_points=[[0, 1]]", name="--set"),
    *options("recipe.drop_path", "recipe.drop_path=1.0", "recipe.drop_path=-0.1", name="--set"),
    *options("recipe.ema_decay", "recipe.ema_decay=1.0", "recipe.ema_decay=0", name="--set"),
    *options("recipe.no_decay", "recipe.no_decay=[norms]", "recipe.no_decay=vectors", name="--set"),
    *options("augmentation.repeats", "recipe.augmentation.repeats=3", name="--set"),
    *bad("search", "set", f"{' '.join(BUDGET)} --set recipe.epochs=9 --set recipe.epochs=9"),
    *bad("search", "set", f"{' '.join(BUDGET)} --epochs 9 --set recipe.epochs=9"),
    *bad("search", "recipe.warmup_epochs", f"{' '.join(BUDGET)} --epochs 3 --set recipe.warmup_epochs=3"),
    *bad("search", "augmentation.repeats", f"{' '.join(BUDGET)} --data folder:photos --recipe deit"),
    *bad("search", "augmentation.crop_scale", f"{' '.join(BUDGET)} --recipe convmixer --epochs 30"),
    *options("study", "nowhere.yaml", "/dev/zero", "/dev/null/x", ".", "pipe.yaml", "loop.yaml", LONG, "binary.yaml"),
    *options("study", "bomb.yaml", "deep.yaml", "list.yaml", "empty.yaml", "twice.yaml", "code.yaml", "huge.yaml"),
    *options("dataset", LONG, "a\0b", name="--data"),
    *options("space", LONG, "a\0b"),
    *options("study", "a\0b", "loop.yaml/x.yaml", f"{LONG}.yaml"),
    *options("runs", LONG, "a\0b", "loop.yaml/x", "arch.yaml", "arch.yaml/x", "pipe.yaml/x", f"x/{LONG}"),
    *options("name", LONG, "a\0b", "..", "a/b", "x" * 256),
    *options("ray_address", LONG, "a\0b:1", "x", ":1", "host:99999", "ray://host:1", "http://host:1", "local"),
    *options("storage", LONG, "a\0b", "sqlite://", "sqlite:///none/x.db", "sqlite:///one", "sqlite:///binary.yaml"),
    *options("storage", "nothing://x", "mysql+nothing://x", "postgresql://u:p@127.0.0.1:1/x", f"sqlite:///{LONG}"),
    *options("storage", f"journal:{LONG}", "journal:a\0b", "journal:", "journal:one", "journal:pipe.yaml"),
    *options("storage", "journal:loop.yaml", "journal:binary.yaml", "journal:arch.yaml", "journal:none/x"),
    *options("storage", *(f"journal:{number}.journal" for number in range(6))),
    *options(
        "checkpoints", LONG, "a\0b", "loop.yaml", "arch.yaml", "pipe.yaml/x", "d/" * 2500, "~nobody_here/x", "one"
    ),
    *options("checkpoints", "reference://", "reference://x", "data://x", "zip://x.zip", "tar://x", "dir://x", "://"),
    *options(
        "checkpoints", "generic://", "generic:///x", "jupyter://x", "asyncwrapper://x", "cached://x", "memory://x"
    ),
    *options("checkpoints", "nothing://x", "a::b", "::", "filecache::x", "simplecache::memory://x", "http+x://y"),
    *options("tracker", "nothing", "", LONG, "tensorbord", *MISSING_TRACKERS),
    *options("confirm", "120%", "100%", "0%", "-5%", "x", "20", "20 %%", "", LONG),
    *options("until", "120%", "0%", "-5%", "off", "0.5", "convergd", "", LONG),
    *options("prior", "nothing", "/nothing/there", "", ".", "a\nb", LONG),
    *bad("search", "budget", (), "--seed 3"),
    *bad("search", "arguments", "stray", "a b c"),
    *bad("search", "option", "--bugdet 6cpu-minutes", "-x"),
    *bad("search", "epochs", "--epochs"),
    *bad("search", "extend", "--extend 1cpu-minutes --budget 6cpu-minutes"),
    *bad("search", "run", "--extend 1cpu-minutes --name nothing"),
]

LIMITS = ("max_macs=", "max_macs=1", "max_macs=x", "max_macs=-1", "max_latency=3ms", f"max_macs={LONG}", "max_macs=9T")
RUNS = [
    *(
        Bad(program, (name, *rest), "run")
        for program, rest in (("report", ()), ("export", ()), ("dashboard", ("--port", "0")), ("status", ()))
        for name in (
            "nothing",
            "arch.yaml",
            "/dev/null",
            ".",
            "[/b]",
            "a\x1b[31mb",
            LONG,
            "a\0b",
            "loop.yaml",
            f"x/{LONG}",
        )
    ),
    *(Bad(program, (), "run") for program in ("report", "export", "dashboard", "status", "explain")),
    *(Bad(program, ("a", "b"), "arguments") for program in ("report", "export", "dashboard", "status", "explain")),
    *(
        Bad(program, ("good", "--nothing"), "option")
        for program in ("report", "export", "dashboard", "status", "explain")
    ),
    *bad("explain", "run", "nowhere", "damaged", "untrained", "good"),  # the last has too few trials
    *bad("explain", "storage", "truncated", "foreign"),
    *bad("replay", "run", (), "nowhere", "damaged", "untrained", "good"),  # the last has too few trials
    *bad("replay", "sampler", "good --sampler exact_costs", "good --sampler="),
    *bad("replay", "stopper", "good --stopper hypervolum"),
    *bad("replay", "budget", "good --budget 20", "good --budget 20gpu-days", "good --budget 0cpu-days"),
    *bad("replay", "devices", "good --devices 0", "good --devices x"),
    *bad("replay", "max_trials", "good --max-trials 0"),
    *bad("replay", "seed", "good --seed x", f"good --seed {2**63}"),
    *bad("replay", "option", "good --nothing"),
    *(
        Bad("export", ("runs/good", f"--{option}={path}", "--force"), option)
        for option in ("out", "weights")
        for path in (
            LONG,
            "a\0b",
            "pipe.yaml",
            "none/x",
            "arch.yaml/x",
            "one",
            ".",
            "",
            "é" * 200,
            f"x/{LONG}",
            "x" * 256,
        )
    ),
    *(
        Bad("export", ("runs/good", f"--out={path}"), "out")
        for path in ("/proc/x.yaml", "/proc/self/x", "loop.yaml", "y" * 255)
    ),
    *(
        Bad("export", ("runs/good", f"--pick={pick}"), "pick")
        for pick in ("", "99", "-1", "٣", "nothing", LONG, "9" * 5000, *LIMITS)
    ),
    *(Bad("export", ("runs/good", f"--format={name}"), "format") for name in ("", "tflite", "YAML", LONG, "\x1b[31m")),
    *bad("export", "weights", *(f"runs/good --format {name} --weights w.pt" for name in ("card", "timm", "torch"))),
    *bad("export", "weights", *(f"runs/good --format {name}" for name in ("timm", "torch"))),  # its trials have none
    *bad("export", "out", "runs/good --format timm --out photos", "runs/good --format timm --out photos --force"),
    *bad("export", "out", "runs/good --format timm --out none/x", "runs/good --format timm --out arch.yaml --force"),
    *bad(
        "export", "out", *(f"runs/good --out arch.yaml --format {name}" for name in ("yaml", "json", "python", "card"))
    ),
    *(
        Bad("dashboard", ("runs/good", "--allow-remote", "--port=0", f"--host={host}"), "host")
        for host in ("é", "é..b", "a\0b", LONG, "-", "a b", "\x1b[31m")
    ),
    *(Bad("dashboard", ("good", f"--port={port}"), "port") for port in ("x", "-1", "65536", "", "1.5", "9" * 5000)),
    *(
        Bad("dashboard", ("good", f"--host={host}"), "host")
        for host in ("0.0.0.0", "::", "192.0.2.1", "é", "example.org", "", "a b", LONG, "\x1b[31m")  # noqa: S104
    ),
]

STATUS = [
    *(
        Bad("status", ("good", f"--watch={seconds}"), "watch")
        for seconds in ("0", "-1", "0.0", "nan", "inf", "-inf", "1e9")
    ),
    *(Bad("status", ("good", f"--watch={seconds}"), "watch") for seconds in ("", "x", "1 2", "\x1b[31m", LONG)),
    *bad("status", "watch", "good --watch 0", "good --watch -1"),
    *(Bad("status", ("good", f"--lines={lines}"), "lines") for lines in (*NO_NUMBER, "-1", "1001")),
    *bad("status", "json", "good --json --watch 5"),
    *bad("status", "run", "empty", "runs/empty", "god", "damaged"),
    *bad("status", "storage", "truncated", "no_database", "text", "newer", "foreign"),
    *bad("status", "runs/later/study.yaml", "later"),
]

FINISH = [
    *bad("finish", "run", ("",), "nowhere", "damaged", "untrained --budget 6cpu-minutes"),
    *bad("finish", "storage", "truncated --budget 6cpu-minutes"),
    *bad("finish", "data", "good --budget 6cpu-minutes"),  # its images are not those of the digits
    *bad("finish", "budget", "searched", "searched --budget 6", "searched --budget 0cpu-minutes"),
    *bad("finish", "extend", "searched --extend 6cpu-minutes", "searched --extend x --budget 6cpu-minutes"),
    *(
        Bad("finish", ("searched", *BUDGET, f"--{option}={value}"), field)
        for option, field, values in (
            ("seeds", "seeds", (*NO_NUMBER, "0", "-1", "101")),
            ("models", "models", ("", "nothing", "99", "-1", "0,", "٣", LONG, "9" * 5000)),
            ("references", "references", ("nothing", "", "poolformer_m48", LONG)),
            ("recipe", "recipe", ("poolfrmer", "nowhere.yaml")),
            ("recipe", "augmentation.crop_scale", ("poolformer",)),  # which digits cannot follow
            ("set", "set", ("epochs=3", "recipe.epochs")),
            ("epochs", "epochs", NO_NUMBER),
            ("images-per-class", "splitting.images_per_class", ("0", "-1")),
            ("images-per-class", "images_per_class", NO_NUMBER),
            ("epochs", "recipe.epochs", ("0", "-1")),
            ("name", "name", ("..", "a/b", "")),
            ("deadline", "deadline", ("0h", "12")),
            ("workers", "workers", ("0", "x")),
            ("gpus-per-trial", "gpus_per_trial", ("2", "0.5")),
            ("cpus-per-model", "cpus_per_model", (*NO_NUMBER, "0", "-1", "1025", "1024", "3")),
            ("gpus-per-model", "gpus_per_model", ("x", "0", "2")),
            ("tracker", "tracker", ("nothing",)),
            ("storage", "storage", ("nothing://x",)),
            ("ray-address", "ray_address", ("nowhere",)),
        )
        for value in values
    ),
    *bad("finish", "models", "searched --budget 6cpu-minutes --models 99 --references none"),
    *bad("finish", "option", "searched --nothing"),
]

TO_EVALUATE = ("empty.safetensors", "--model=arch.yaml", "--data=digits")
EVALUATE = [
    *bad("evaluate", "checkpoint", "", "nowhere.pt --model arch.yaml --data digits", TO_EVALUATE),
    *bad(
        "evaluate",
        "checkpoint",
        *((path, "--model=arch.yaml", "--data=digits") for path in (LONG, "a\0b", "loop.yaml")),
    ),
    *bad("evaluate", "checkpoint", "photos --model arch.yaml --data digits", "pipe.pt --model arch.yaml --data digits"),
    *bad(
        "evaluate", "model", "empty.safetensors --data digits", "empty.safetensors --model poolfrmer_s12 --data digits"
    ),
    *bad("evaluate", "dataset", "empty.safetensors --model arch.yaml --data digitz"),
    *bad("evaluate", "data", "empty.safetensors --model arch.yaml"),
    *bad("evaluate", "split", "empty.safetensors --model arch.yaml --data digits --split all"),
    *bad("evaluate", "recipe", "empty.safetensors --model arch.yaml --data digits --recipe poolfrmer"),
    *bad("evaluate", "device", "empty.safetensors --model arch.yaml --data digits --device tpu"),
]

COMPARE = [
    *bad("compare", "runs", (), "good", "good good", "good runs/good", "good ./runs/good"),
    *bad(
        "compare",
        "run",
        "good nothing",
        "arch.yaml good",
        "good damaged",
        "good empty",
        ("good", LONG),
        ("good", "a\0b"),
    ),
    *bad("compare", "storage", "good truncated", "good foreign"),
    *bad("compare", "option", "good good --nothing"),
    *(
        Bad("compare", ("good", "good", f"--out={path}"), "out")
        for path in (LONG, "a\0b", "pipe.yaml", "none/x", "arch.yaml/x", "arch.yaml", "one", "")
    ),
]

TO_PREPARE = ("folder:photos", "--out", "fresh")
PREPARE = [
    *bad("prepare", "data", ()),
    *bad("prepare", "out", "folder:photos", "folder:photos --out photos", "folder:photos --out arch.yaml"),
    *bad("prepare", "dataset", *(f"{name} --out fresh" for name in ("digits", "folder:", "folder:nowhere", "nothing"))),
    *bad("prepare", "dataset", *(f"{name} --out fresh" for name in ("torch/x", "torch/imagenet:photos/val", "wds/x"))),
    *bad("prepare", "dataset", "folder:arch.yaml --out fresh", ("[/b]\x1b[31m", "--out", "fresh")),
    *(
        Bad("prepare", (*TO_PREPARE, f"--{option}={value}"), option)
        for option, values in (
            ("resolution", (*NO_NUMBER, "-1", "7", "8193")),
            ("side", (*NO_NUMBER, "-1", "31", "8193")),  # the photographs have 30 pixels, models see 32
            ("workers", (*NO_NUMBER, "0", "-1", "1025")),
        )
        for value in values
    ),
    *bad("prepare", "bad_images", "folder:photos --out fresh --bad-images nothing"),
    *bad("prepare", "option", "folder:photos --out fresh --nothing"),
    *bad("prepare", "arguments", "folder:photos more --out fresh"),
]

TO_TRAIN = ("arch.yaml", "--data=digits", "--out=fresh")
TRAIN = [
    *bad("train", "model", "--data digits --out fresh", "poolfrmer_s12 --data digits --out fresh"),
    *bad("train", "data", "arch.yaml --out fresh"),
    *bad("train", "out", "arch.yaml --data digits"),
    *bad("train", "dataset", *(f"arch.yaml --data {name} --out fresh" for name in ("digitz", "folder:nowhere"))),
    *(
        Bad("train", (*TO_TRAIN, f"--{option}={value}"), field)
        for option, field, values in (
            ("recipe", "recipe", ("poolfrmer", "nowhere.yaml", "pipe.yaml")),
            ("recipe", "augmentation.crop_scale", ("poolformer",)),  # which digits cannot follow
            ("set", "set", ("epochs=3", "recipe.epochs")),
            ("set", "recipe.epochs", ("recipe.epochs=0",)),
            ("epochs", "epochs", (*NO_NUMBER, "0", "-1")),
            ("batch-size", "batch_size", (*NO_NUMBER, "0", "-1")),
            ("resolution", "resolution", (*NO_NUMBER, "0", "-1", "8193", "1")),
            ("from", "checkpoint", ("nowhere.pt", "one", "pipe.pt", "empty.safetensors", "published", LONG)),
            ("seed", "seed", NO_NUMBER),
            ("val-fraction", "splitting.val", ("0", "1", "nan", "0.2")),
            ("val-fraction", "val_fraction", ("x", "")),
            ("images-per-class", "splitting.images_per_class", ("0", "-1")),
            ("images-per-class", "images_per_class", NO_NUMBER),
            ("split-seed", "splitting.seed", ("-1", str(2**32))),
            ("split-seed", "split_seed", NO_NUMBER),
            ("loaders", "loaders", (*NO_NUMBER, "-1", "257")),
            ("device", "device", ("", "gpu", LONG)),
            ("tracker", "tracker", ("nothing", "", LONG, *MISSING_TRACKERS)),
        )
        for value in values
    ),
    *bad("train", "device", "arch.yaml --data digits --out fresh --device cuda"),
    *(Bad("train", ("arch.yaml", "--data=digits", f"--out={out}"), "out") for out in (LONG, "a\0b", "arch.yaml/x")),
]

TO_TRANSFER = ("arch.yaml", "--task=mask_rcnn", "--data=coco:coco", "--out=fresh")
TRANSFER = [
    *bad("transfer", "model", "--task retinanet --data coco:coco --out fresh"),
    *bad("transfer", "model", "poolfrmer_s12 --task retinanet --data coco:coco --out fresh"),
    *bad("transfer", "task", "arch.yaml --data coco:coco --out fresh"),
    *bad("transfer", "out", "arch.yaml --task retinanet --data coco:coco"),
    *bad("transfer", "stages", "deit_tiny_patch16_224 --task retinanet --data coco:coco --out fresh"),
    *bad("transfer", "stages", "convmixer_256_8_p2_k5 --task semantic_fpn --data ade:ade --out fresh"),
    *bad("transfer", "resolution", "metaformer_ppaa_s12_224 --task retinanet --data coco:coco --out fresh"),
    *bad("transfer", "steps", "arch.yaml --task retinanet --data coco:coco --out fresh --epochs 1 --steps 1"),
    *(
        Bad("transfer", (*TO_TRANSFER, f"--{option}={value}"), field)
        for option, field, values in (
            ("task", "task", ("retinanett", "", LONG, "[/b]\x1b[31m")),
            ("task", "data", ("semantic_fpn",)),
            ("data", "data", ("coco", "coco:", "ade:ade", "digits", "coco:nowhere", "coco:arch.yaml", f"coco:{LONG}")),
            ("data", "data", ("coco:photos", "coco:coco_json", "coco:coco_image", "coco:coco_category")),
            (
                "recipe",
                "recipe",
                ("poolfrmer", "nowhere.yaml", "pipe.yaml", "semantic_fpn_published"),
            ),
            ("recipe", "recipe.augmentation", ("wrong_key.yaml",)),
            ("epochs", "epochs", NO_NUMBER),
            ("epochs", "recipe.epochs", ("0", "-1")),
            ("steps", "recipe.steps", ("0", "-1")),
            ("evaluations", "recipe.evaluations", ("0", "-1")),
            ("batch-size", "recipe.batch_size", ("-1", "65537")),
            ("size", "recipe.size", ("31", "8193")),
            ("from", "checkpoint", ("nowhere.pt", "one", "pipe.pt", "empty.safetensors", "published", LONG)),
            ("checkpoint-every", "checkpoint_every", ("0s", "x", "")),
            ("loaders", "loaders", ("-1", "257")),
            ("device", "device", ("", "gpu", LONG)),
            ("out", "out", (LONG, "a\0b", "arch.yaml/x")),
        )
        for value in values
    ),
    *bad("transfer", "data", *(f"arch.yaml --task semantic_fpn --data ade:{x} --out fresh" for x in ("photos", "no"))),
]

METAFORMER = [
    *(
        Bad("metaformer", (command, model, *rest), field)
        for command, rest in (
            ("show", ()),
            ("cost", ()),
            ("compare", ("poolformer_s12",)),
            ("validate", ("--data", ".")),
        )
        for model, field in (
            ("nothing", "model"),
            ("", "model"),
            (LONG, "model"),
            ("[/b]", "model"),
            ("a\x1b[31mb", "model"),
            ("nowhere.yaml", "architecture"),
            ("pipe.yaml", "architecture"),
            ("loop.yaml", "architecture"),
            ("bomb.yaml", "bomb.yaml"),
            ("deep.yaml", "deep.yaml"),
            ("list.yaml", "list.yaml"),
            ("empty.yaml", "empty.yaml"),
            ("twice.yaml", "twice.yaml"),
            ("code.yaml", "code.yaml"),
            ("huge.yaml", "huge.yaml"),
            ("binary.yaml", "architecture"),
            ("/dev/zero", "architecture"),
            ("one", "architecture"),
            ("text_width.yaml", "text_width.yaml"),
            ("version.yaml", "version.yaml"),
            ("wide.yaml", "wide.yaml"),
        )
    ),
    *(
        Bad("metaformer", ("cost", "poolformer_s12", f"--resolution={resolution}"), "resolution")
        for resolution in (*NO_NUMBER, "0", "-1", "2", "8193", "1000000000000")
    ),
    *bad("metaformer", "arguments", "nothing", "shw poolformer_s12", "list poolformer_s12"),
    *bad("metaformer", "model", "show", "cost", "validate --data ."),
    *bad("metaformer", "first", "compare"),
    *bad("metaformer", "second", "compare poolformer_s12"),
    *bad("metaformer", "option", "list --jsn", "cost poolformer_s12 --resolutoin 3"),
    *bad("metaformer", "data", "validate poolformer_s12", *(f"validate tiny.yaml --data {x}" for x in ("no", "one"))),
    *(
        Bad("metaformer", ("validate", "tiny.yaml", f"--data={path}"), "data")
        for path in (LONG, "a\0b", "loop.yaml", "pipe.yaml", "/dev/null", "", f"x/{LONG}")
    ),
    *(
        Bad("metaformer", ("validate", "tiny.yaml", "--data=photos", f"--split={split}"), "split")
        for split in ("nothing", LONG, "a\0b", "../loop.yaml", "../pipe.yaml")
    ),
    *(
        Bad("metaformer", ("validate", "tiny.yaml", "--data=photos", f"--{option.replace('_', '-')}={value}"), option)
        for option, values in (
            ("batch_size", ("0", "-1", "x", "65537", "")),
            ("workers", ("-1", "x", "257", "")),
            ("resolution", ("0", "-1", "x", "8193", "nan")),
            ("crop_pct", ("0", "-1", "x", "1.1", "nan", "inf")),
            ("device", ("nothing", "cuda:99", "meta", "", LONG)),
            ("precision", ("nothing", "", "float16")),
            ("checkpoint", ("nowhere.pt", ".", "arch.yaml", "pipe.pt", LONG, "binary.yaml", "empty.safetensors")),
        )
        for value in values
    ),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and with files of all the wrong kinds."""
    root = tmp_path_factory.mktemp("bad")
    arch = zoo.get("poolformer_s12").model_copy(update={"resolution": 32})
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    texts = {
        "arch.yaml": arch.to_yaml(),
        "tiny.yaml": arch.model_copy(update={"head": arch.head.model_copy(update={"num_classes": 2})}).to_yaml(),
        "bomb.yaml": "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + levels,
        "deep.yaml": "stages: " + "[" * 3000 + "]" * 3000,
        "list.yaml": "[1, 2]",
        "empty.yaml": "",
        "twice.yaml": "version: 1\nversion: 1\n",
        "code.yaml": "stages: !!python/object/apply:os.system [touch written]",
        "huge.yaml": "stages: " + "x" * 2_000_000,
        "text_width.yaml": arch.to_yaml().replace("width: 64", "width: '64'", 1),
        "version.yaml": arch.to_yaml().replace("version: 1", "version: true", 1),
        "wide.yaml": arch.to_yaml().replace("width: 64", "width: 10000000", 1),
        "empty.safetensors": "",
        "few_epochs.yaml": "epochs: 3",
        "wrong_key.yaml": "augmentation: {mixop: 0.2}",
        "wrong_value.yaml": "epochs: '3'",
        "stem.yaml": "settings: {stem: {kernel: 3}}",
    }
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")
    (root / "binary.yaml").write_bytes(bytes(range(256)))
    (root / "loop.yaml").symlink_to(root / "loop.yaml")
    os.mkfifo(root / "pipe.yaml")
    os.mkfifo(root / "pipe.pt")
    write_folder(root / "photos", train={"a": 2, "b": 2}, val={"a": 1, "b": 1})
    (root / "one" / "train" / "a").mkdir(parents=True)
    write_ade(root / "ade", num_train=1, num_val=1)
    for name in ("coco", "coco_json", "coco_image", "coco_category"):
        write_coco(root / name, num_train=1, num_val=1)
    (root / "coco_json" / "annotations" / "instances_val.json").write_text('{"images": [', encoding="utf-8")
    (root / "coco_image" / "train" / "train_0.png").unlink()
    document = instances(root / "coco_category", "val")
    document["annotations"][0]["category_id"] = 5
    write_instances(root / "coco_category", "val", document)
    journals = (
        "[1]\n",
        "{}\n",
        '{"op_code": 99, "worker_id": 1}\n',
        "{nope\nnope\n",
        "{" * 3000 + "\n{}\n",
        '{"op_code": "x"}\n',
    )
    for number, text in enumerate(journals):
        (root / f"{number}.journal").write_text(text, encoding="utf-8")
    make_run(root / "runs" / "good", max_trials=2).record.close()
    make_search(root / "runs" / "searched", max_trials=2).record.close()
    make_run(root / "runs" / "untrained", fail_every=1, max_trials=2).record.close()
    _damage(root / "runs")
    return root


def _damage(runs: Path) -> None:
    """Make copies of a good run that cannot be read, each for a reason of its own."""
    (runs / "empty").mkdir()
    for name in ("damaged", "truncated", "no_database", "text", "newer", "foreign", "later"):
        shutil.copytree(runs / "good", runs / name)
    (runs / "damaged" / "study.db").unlink()
    whole = (runs / "good" / "study.db").read_bytes()
    (runs / "truncated" / "study.db").write_bytes(whole[: len(whole) // 2])
    (runs / "no_database" / "study.db").write_bytes(b"")
    (runs / "text" / "study.db").write_text("no database", encoding="utf-8")
    with closing(sqlite3.connect(runs / "newer" / "study.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
    fields = yaml.safe_load((runs / "good" / "study.yaml").read_text(encoding="utf-8"))
    (runs / "foreign" / "study.yaml").write_text(yaml.safe_dump({**fields, "identity": "of another"}), encoding="utf-8")
    (runs / "later" / "study.yaml").write_text(yaml.safe_dump({**fields, "version": 2}), encoding="utf-8")


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    """A pipe that is waited for ends the test."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def _no_workers(*_: object, **__: object) -> None:
    pytest.fail("it asked for workers")


def _files(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of everything below a folder."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in root.rglob("*")}


def _check(case: Bad, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", [case.program, *case.arguments])
    monkeypatch.setattr("nas.launch.RayBackend", _no_workers)
    before = _files(place)
    with pytest.raises(SystemExit) as ended:
        cli.run(*PROGRAMS[case.program])
    out, errors = capsys.readouterr()
    line = errors.removesuffix("\n")
    assert (ended.value.code, out) == (2, "")
    assert line.startswith(f"error: {case.field}")
    assert line.isprintable()
    assert len(line) <= 300
    assert _files(place) == before


TABLE = [
    *bad("table", "out", "curves", "runs/x.txt", "arch.yaml/x.csv", f"{LONG}.csv"),
    *bad("table", "space", "x.csv --space hybrid_stagez"),
    *bad("table", "dataset", "x.csv --data digitz", "x.csv --data folder:nowhere"),
    *bad("table", "recipe", "x.csv --set recipe.epochs=0", "x.csv --recipe nowhere"),
    *bad("table", "set", "x.csv --set epochs"),
    *bad("table", "max_macs", "x.csv --max-macs lots"),
    *bad("table", "number", "x.csv --number 0", "x.csv --number 1000000"),
    *bad("table", "study", "x.csv --study nowhere.yaml"),
]


INPUTS = [*SEARCH, *RUNS, *FINISH, *EVALUATE, *STATUS, *COMPARE, *PREPARE, *TABLE, *TRAIN, *TRANSFER, *METAFORMER]


@pytest.mark.parametrize("case", INPUTS, ids=str)
def test_a_bad_input_is_one_short_line_with_the_field_and_code_2(
    case: Bad, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _check(case, place, monkeypatch, capsys)


ROWS = ('"x"', "3", "null", "[]", "true", '{"a": 1}', "nope", "", "NaN", "1e999", "[[1]]", f'"{LONG}"', "[" * 3000)
_OF_TRIALS = (
    "INSERT OR REPLACE INTO trial_user_attributes (trial_id, key, value_json) SELECT trial_id, '{}', ? FROM trials"
)
_OF_STUDY = "INSERT OR REPLACE INTO study_user_attributes (study_id, key, value_json) VALUES (1, '{}', ?)"
TAMPERED: list[tuple[str, tuple[str, ...]]] = [
    *((_OF_TRIALS.format("progress"), (row,)) for row in ROWS),
    (_OF_TRIALS.format("progress"), ("{}",)),
    *((_OF_TRIALS.format("home"), (row,)) for row in ROWS if row != "3"),
    *((_OF_TRIALS.format("seed"), (row,)) for row in ROWS if row not in ("3", "null")),
    *((_OF_TRIALS.format("references"), (row,)) for row in ROWS if row not in ("[]", "null")),
    *((_OF_TRIALS.format("reference"), (row,)) for row in ROWS if row not in ('"x"', "null", f'"{LONG}"')),
    *((_OF_TRIALS.format("reason"), (row,)) for row in ROWS if row not in ('"x"', "null", f'"{LONG}"')),
    *((_OF_TRIALS.format("stop_reason"), (row,)) for row in ROWS if row != "null"),
    *((_OF_STUDY.format("test_accuracy:0"), (row,)) for row in ROWS if row != "null"),
    *((_OF_STUDY.format("speed"), (row,)) for row in ROWS if row != "null"),
    *((_OF_STUDY.format("events"), (row,)) for row in ROWS if row != "[]"),
    *(("UPDATE trial_params SET distribution_json = ?", (row,)) for row in ROWS),
    *(("UPDATE trial_params SET param_value = ?", (value,)) for value in ("99", "-1", "1e300", "x")),
    ("UPDATE trial_params SET param_name = param_name || ?", ("x",)),
    ("UPDATE trials SET state = ?", ("NOTHING",)),
    ("UPDATE trials SET datetime_start = ?", ("yesterday",)),
    ("UPDATE trials SET number = NULL", ()),
    ("UPDATE studies SET study_name = ?", ("another",)),
    ("UPDATE study_directions SET direction = ?", ("SIDEWAYS",)),
    ("DELETE FROM trial_params WHERE param_id = 1", ()),
    ("DELETE FROM trial_user_attributes", ()),
    ("DROP TABLE trial_params", ()),
]


@pytest.mark.parametrize(("statement", "values"), every_third_row(TAMPERED), ids=lambda part: str(part)[:60])
def test_a_row_that_nobody_of_ours_wrote_is_one_short_line(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    statement: str,
    values: tuple[str, ...],
) -> None:
    run = place / "runs" / "tampered"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(place / "runs" / "good", run)
    with closing(sqlite3.connect(run / "study.db")) as connection, connection:
        connection.execute(statement, values)
    _check(Bad("report", ("tampered",), "storage"), place, monkeypatch, capsys)


def test_attributes_of_others_are_no_part_of_a_study(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = place / "runs" / "of-others"
    shutil.copytree(place / "runs" / "good", run)
    with closing(sqlite3.connect(run / "study.db")) as connection, connection:
        connection.execute(_OF_TRIALS.format("of somebody"), ('{"deep": [1]}',))
        connection.execute(_OF_STUDY.format("of somebody"), ("3",))
    report(str(run), as_json=True)
    assert '"front"' in capsys.readouterr().out


def _broken() -> None:
    """A program with a defect."""
    raise KeyError("postgresql://me:secret@host/x", "a\x1b[31mb")


def test_a_defect_is_one_line_with_code_70_and_the_place_of_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["broken"])
    with pytest.raises(SystemExit) as ended:
        cli.run(_broken)
    out, errors = capsys.readouterr()
    [log] = tmp_path.iterdir()
    line = errors.removesuffix("\n")
    assert (ended.value.code, out) == (70, "")
    assert line.startswith("error: program: must not break, got KeyError: ")
    assert line.endswith(f"its traceback is in {log}")
    assert line.isprintable()
    assert len(line) <= 300
    written = log.read_text(encoding="utf-8")
    assert "in _broken" in written
    assert "secret" not in line + written
    assert log.stat().st_mode & 0o077 == 0  # nobody else reads it


def test_a_defect_is_told_where_no_log_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    monkeypatch.setattr(sys, "argv", ["broken"])
    with pytest.raises(SystemExit) as ended:
        cli.run(_broken)
    assert ended.value.code == 70
    assert "it broke at test_bad_input.py:" in capsys.readouterr().err


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "a\x1bb"), OSError(28, "No space left")])
def test_a_file_that_cannot_be_used_is_no_defect(
    error: OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def program() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as ended:
        cli.run(program)
    assert ended.value.code == 2
    assert re.fullmatch(
        r"error: file: must be usable, got .* \((Permission denied|No space left)\)\n", capsys.readouterr().err
    )


STUDY_FIELDS: list[tuple[str, object]] = [
    *(("version", value) for value in (True, 1.0, "1", 2, None, [])),
    *(("seed", value) for value in (True, "3", 1.5, None, float("nan"), 2**64)),
    *(("budget", value) for value in (6, None, [], {}, "6cpu", True)),
    *(("until", value) for value in (0.2, None, True, [], "120%", "off")),
    *(("confirm", value) for value in (0.2, None, True, [], "120%", "x")),
    *(("prior", value) for value in (3, "runs/x", [], {}, {"run": "x", "models": []})),
    *(("prior", {"run": "x", "models": [model] * 5}) for model in (3, {}, {"genes": {}, "val_accuracy": 2})),
    *(("recipe", value) for value in (3, None, [], "x")),
    *(("recipe.epochs", value) for value in ("4", True, 0, 4.5, 10**12, None, [4])),
    *(("recipe.batch_size", value) for value in ("64", True, 0, -1, 10**9)),
    *(("recipe.weight_decay", value) for value in ("x", True, -1.0, float("nan"), float("inf"))),
    *(("recipe.precision", value) for value in ("x", 16, None)),
    *(("recipe.augmentation.flip", value) for value in (2, -1, "x", True)),
    *(("recipe.optimizer", value) for value in ("adam", 3, None)),
    *(("recipe.lr_points", value) for value in (3, [], [[0, 1]], [[0]], "x")),
    *(("settings", value) for value in (3, [], "x")),
    *(("settings.resolution", value) for value in ("32", True, 32.5, float("nan"), [32])),
    *(("settings.num_classes", value) for value in ("10", True, 0, 11)),
    *(("settings.width_scale", value) for value in ("0.5", True, 0, float("nan"))),
    *(("settings.limits.max_macs", value) for value in ("1M", True, 0, 10**20, 1.5)),
    *(("references", value) for value in (3, "poolformer_s12", ["nothing"])),
    *(("objectives", value) for value in (3, "accuracy", ["nothing"], [])),
    *(("workers", value) for value in (True, "2", 0, 10**6, 1.5)),
    *(("gpus_per_trial", value) for value in (True, 2, "x", [], 0.5)),
    *(("cpus_per_model", value) for value in (True, 0, "2", 1.5, [])),
    *(("splitting", value) for value in (3, None, [], "x", {"test": 0.1})),
    *(("splitting.val", value) for value in ("0.1", True, 0, 1, None, float("nan"))),
    *(("splitting.images_per_class", value) for value in ("3", True, 0, 1.5)),
    *(("splitting.seed", value) for value in ("3", True, -1, 2**32, None)),
    *(("nothing", value) for value in (1, None)),
    ("x" * 3000, 1),
    ("a\x1b[31m", 1),
]


@pytest.mark.parametrize(("field", "value"), every_third_row(STUDY_FIELDS), ids=lambda part: str(part)[:40])
def test_a_bad_field_of_a_study_file_is_one_short_line_with_its_name(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    field: str,
    value: object,
) -> None:
    fields = yaml.safe_load(make_study(max_trials=None).to_yaml())
    fields["data_fingerprint"] = open_dataset("digits", resolution=32).info.fingerprint
    *above, last = field.split(".")
    inner = fields
    for name in above:
        inner = inner[name]
    inner[last] = value
    (place / "study.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    shown = field if field.isprintable() and len(field) < 90 else field[:1]
    _check(Bad("search", ("--study", "study.yaml"), shown), place, monkeypatch, capsys)


def _calls() -> dict[str, tuple[Callable[[], object], str]]:
    """Public functions called with values of the wrong type, and how their errors begin."""
    arch = zoo.get("poolformer_s12")
    odd: tuple[object, ...] = (3, None, [], True, b"x", 1.5, {"a": 1})
    takers: dict[str, tuple[Callable[[Any], object], str]] = {
        "zoo.get": (zoo.get, "model: must be a name, got "),
        "zoo.resolve": (zoo.resolve, "model: must be an architecture, a name or a path, got "),
        "zoo.preprocessing": (zoo.preprocessing, "model: must be an architecture, a name or a path, got "),
        "build": (metaformer.build, "model: must be an architecture, a name or a path, got "),
        "load": (metaformer.load, "model: must be an architecture, a name or a path, got "),
        "count_cost": (metaformer.count_cost, "arch: must be an architecture, got "),
        "from_yaml": (metaformer.Architecture.from_yaml, "architecture: must be text, got "),
        "from_file": (metaformer.Architecture.from_file, "architecture: must be a path, got "),
        "get": (search_spaces.get, "space: must be a name, got "),
        "budget": (Budget.parse, "budget: must be text such as 64gpu-days, got "),
        "duration": (lambda value: parse_duration("deadline", value), "deadline: must be text such as 12h, got "),
        "count": (lambda value: parse_count("max_macs", value), "max_macs: must be text such as 12M, got "),
        "open_run": (open_run, "run: must be the path of a folder, got "),
        "study": (Study.from_file, "study: must be a path, got "),
        "storage": (open_storage, "storage: must be the URL of a database, got "),
        "name": (check_name, "name: must be text, got "),
        "read_checkpoint": (read_checkpoint, "checkpoint: must be a path, got "),
        "to_ours": (lambda value: to_ours(value, arch), "state: must be a mapping of names to tensors, got "),
        "to_ours of": (lambda value: to_ours({}, value), "arch: must be an architecture, got "),
        "from_ours": (
            lambda value: from_ours(value, arch, "ours"),
            "state: must be a mapping of names to tensors, got ",
        ),
        "mixer": (lambda value: register_mixer(value, layout="BCHW"), "mixer: must be registered under a name, got "),
        "space": (register_space, "space: must be registered under a name, got "),
        "objective": (register_objective, "objective: must be registered under a name, got "),
        "sampler": (lambda value: register_proposer(value, print), "sampler: must be registered under a name, got "),
        "a space": (register_space("odd"), "space: must be a subclass of SearchSpace, got "),
        "an objective": (register_objective("odd"), "objective: must be a subclass of Objective, got "),
        "a sampler": (lambda value: register_proposer("odd", value), "sampler: must be a function that makes a Propos"),
        "data": (lambda value: open_dataset(value, resolution=32), "dataset: must be a name, got "),
    }
    numbers: dict[str, tuple[Callable[[Any], object], str]] = {
        "cost at": (lambda side: metaformer.count_cost(arch, resolution=side), "resolution: must be a whole number"),
        "data at": (lambda side: open_dataset("digits", resolution=side), "resolution: must be a whole number"),
        "loaders": (
            lambda n: open_dataset("digits", resolution=32, num_workers=n),
            "num_workers: must be a whole number",
        ),
    }
    calls = {f"{name} {value!r}": (partial(f, value), said) for name, (f, said) in takers.items() for value in odd}
    for name, (f, said) in numbers.items():
        calls |= {f"{name} {value!r}": (partial(f, value), said) for value in ("32", 32.5, float("nan"), [], True)}
    calls["settings"] = (lambda: search_spaces.get("hybrid_stages", 3), "settings: must be SpaceSettings, got 3")
    for value in (3, None, [], "yes", 1.5):
        calls[f"resample {value!r}"] = (
            lambda value=value: metaformer.load(arch, "x.pth", resample_positions=value),
            "resample_positions: must be yes or no, got ",
        )
    calls["a mixer"] = (lambda: register_mixer("odd", layout="BCHW"), "mixer: must have a MixerSpec subclass of its ki")
    calls["checkpoint"] = (lambda: metaformer.load(arch, checkpoint=3), "checkpoint: must be a path, got 3")
    return calls


CALLS = _calls()


@pytest.mark.parametrize("name", CALLS)
def test_a_value_of_another_type_is_the_projects_own_error_with_field_and_rule(name: str) -> None:
    call, said = CALLS[name]
    with pytest.raises(UserError, match=f"^{re.escape(said)}") as caught:
        call()
    assert len(str(caught.value)) <= 300
