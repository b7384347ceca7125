"""Images per second of our models beside timm's, forward and whole training step, in one process.

Command:   python -m benchmarks.train_step
Hardware:  two CPU cores, or one GPU if there is one; needs torch, timm and pydantic, and no installation
Time:      about 20 minutes on CPU (--models caformer_s18 --rounds 5: 2 minutes), 5 minutes on a GPU
Expected:  at least 1.3 times the images per second of timm's default layout, and nowhere slower than the better of
           timm's two layouts beyond the spread of the rounds; results/train_step.md says where that is met

The same architecture three times: ours, timm's in its default layout (NCHW), timm's in channels-last memory, each with
images in its own layout and with the same drop path. A round measures the three one after the other, and each round
begins with another, so that what else runs on the machine slows all three alike; a ratio is taken within a round, and
the table gives the median of the rounds and, in brackets, their quartiles. A step is forward, cross entropy, backward
and fused AdamW, in training mode; a forward pass runs in evaluation mode without gradients. Memory is the peak of a
model alone, with its weights, gradients and optimiser, on a GPU. There float32 uses TF32 and cuDNN picks its kernels by
trying, for all three. In eager mode starting a step's kernels may take longer than they run, so that the phase "graph"
measures the same step as a CUDA graph, as the training loop of a search has it, for all three. "GPU ms" is the time of
all kernels of a step.

B batch, C channels, H height, W width.
"""

import argparse
import contextlib
import gc
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles

import timm
import torch
import torch.nn.functional as F
from timm.models.convmixer import ConvMixer
from torch import Tensor, nn

from metaformer import Architecture, build, zoo
from metaformer.errors import UserError, unknown_name

MODELS = ("poolformer_s12", "poolformer_s24", "caformer_s18", "convmixer_768_32", "convmixer_256_8_p2_k5")
CIFAR = {"convmixer_256_8_p2_k5": {"dim": 256, "depth": 8, "kernel_size": 5, "patch_size": 2, "num_classes": 10}}
PRECISIONS = ("float32", "bfloat16")
PHASES = ("forward", "step")
GRAPH = "graph"  # a step as a CUDA graph
OURS, DEFAULT, LAST = "ours", "timm", "timm channels-last"
TARGET = 1.3  # times the images per second of timm's default layout
EPILOG = """examples:
  python -m benchmarks.train_step
  python -m benchmarks.train_step --models poolformer_s12,caformer_s18 --precisions float32 --rounds 5 --threads 1
  python -m benchmarks.train_step --device cuda --phases forward,step,graph --json train_step.json
  python -m benchmarks.train_step --device cuda --compile --phases step --precisions bfloat16"""


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often."""

    models: tuple[str, ...]
    precisions: tuple[str, ...]
    device: torch.device
    batch_size: int
    resolution: int | None  # None: each model's own
    phases: tuple[str, ...]
    compiled: bool  # by torch.compile, all three
    rounds: int
    seconds: float  # one measurement takes at least this long


class Contender:
    """A model with its images, labels and optimiser, ready to run."""

    def __init__(
        self, model: nn.Module, images_BCHW: Tensor, *, num_classes: int, precision: str, phases: tuple[str, ...]
    ) -> None:
        device = images_BCHW.device
        self.model = model.to(device)
        self.images_BCHW = images_BCHW
        self.labels_B = torch.arange(len(images_BCHW), device=device) % num_classes
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
        # A rate of 0 does all the work and leaves the numbers as they are: no round computes on vanishing gradients.
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0, fused=True, capturable=GRAPH in phases)
        self.captured: torch.cuda.CUDAGraph | None = None
        self.seconds: dict[str, list[float]] = {phase: [] for phase in phases}
        self.num_calls = dict.fromkeys(phases, 1)
        self.memory_mib: float | None = None

    @torch.inference_mode()
    def forward(self) -> None:
        with self.autocast:
            self.model(self.images_BCHW)

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast:
            loss = F.cross_entropy(self.model(self.images_BCHW).float(), self.labels_B)
        loss.backward()
        self.optimizer.step()

    def graph(self) -> None:
        """The step, captured at its first call after three that choose the kernels."""
        if self.captured is None:
            for _ in range(3):
                self.step()
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            self.captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.captured):
                self.step()
        self.captured.replay()

    def measure(self, phase: str) -> float:
        """Seconds of one call, the mean of `num_calls`."""
        self.model.train(phase != "forward")
        call: Callable[[], None] = getattr(self, phase)
        wait(self.images_BCHW.device)
        start = time.perf_counter()
        for _ in range(self.num_calls[phase]):
            call()
        wait(self.images_BCHW.device)
        return (time.perf_counter() - start) / self.num_calls[phase]

    def kernel_ms(self, num_steps: int = 3) -> float:
        """Milliseconds of a training step in which a GPU's kernels run, by torch's profiler."""
        self.model.train()
        with torch.profiler.profile() as profile:
            for _ in range(num_steps):
                self.step()
            wait(self.images_BCHW.device)
        on_gpu = [event for event in profile.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]
        return sum(event.self_device_time_total for event in on_gpu) / num_steps / 1000

    def warm_up(self, at_least_s: float) -> None:
        """Run each phase twice and choose the calls that fill a measurement."""
        for phase in self.num_calls:
            self.measure(phase)
            self.num_calls[phase] = max(1, round(at_least_s / self.measure(phase)))


@dataclass
class Row:
    """One model in one precision and phase: images per second of the three, and ours over theirs in each round."""

    model: str
    precision: str
    phase: str
    images_per_s: dict[str, float]
    memory_mib: dict[str, float | None]
    ratios: dict[str, list[float]] = field(repr=False)
    kernel_ms: dict[str, float] = field(default_factory=dict)  # of a step, on a GPU

    @property
    def best(self) -> str:
        """The layout in which timm is faster."""
        return max((DEFAULT, LAST), key=self.images_per_s.__getitem__)

    def ratio(self, layout: str) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile over the rounds."""
        low, middle, high = quantiles(self.ratios[layout], n=4, method="inclusive")
        return low, middle, high


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def architecture(name: str, resolution: int | None) -> Architecture:
    arch = zoo.get(name)
    return arch if resolution is None else Architecture.model_validate(arch.model_dump() | {"resolution": resolution})


def make_timm(name: str, arch: Architecture) -> nn.Module:
    """timm's model of this name with the drop path of ours."""
    if name in CIFAR:
        return ConvMixer(**CIFAR[name])
    return timm.create_model(name, drop_path_rate=arch.drop_path) if arch.drop_path else timm.create_model(name)


def make_contenders(name: str, precision: str, plan: Plan) -> dict[str, Contender]:
    """Ours and timm's in both layouts, warm, with the peak memory of each."""
    arch = architecture(name, plan.resolution)
    makers: dict[str, Callable[[], nn.Module]] = {
        OURS: lambda: build(arch),
        DEFAULT: lambda: make_timm(name, arch),
        LAST: lambda: make_timm(name, arch).to(memory_format=torch.channels_last),
    }
    contenders = {}
    for layout, make in makers.items():
        memory_format = torch.contiguous_format if layout == DEFAULT else torch.channels_last
        images_BCHW = torch.randn(plan.batch_size, 3, arch.resolution, arch.resolution, device=plan.device)
        images_BCHW = images_BCHW.contiguous(memory_format=memory_format)
        with peak_memory(plan.device) as peaks_mib:
            model = make()
            if plan.compiled:
                model.compile()
            contender = Contender(
                model, images_BCHW, num_classes=arch.head.num_classes, precision=precision, phases=plan.phases
            )
            contender.warm_up(plan.seconds)
        contender.memory_mib = peaks_mib[0] if peaks_mib else None
        contenders[layout] = contender
    return contenders


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float]]:
    """A list that holds, at the end, the most MiB that were taken within beyond what was there before; empty on CPU."""
    peaks_mib: list[float] = []
    if device.type != "cuda":
        yield peaks_mib
        return
    gc.collect()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield peaks_mib
    peaks_mib.append((torch.cuda.max_memory_allocated(device) - before) / 2**20)


def measure(name: str, precision: str, plan: Plan) -> list[Row]:
    """All rounds of one model in one precision; a row for each phase."""
    contenders = make_contenders(name, precision, plan)
    order = list(contenders.values())
    for _ in range(plan.rounds):
        for phase in plan.phases:
            for contender in order:
                contender.seconds[phase].append(contender.measure(phase))
        order = order[1:] + order[:1]
    kernel_ms = {}
    if plan.device.type == "cuda" and plan.phases != ("forward",):
        kernel_ms = {layout: contender.kernel_ms() for layout, contender in contenders.items()}
    rows = []
    for phase in plan.phases:
        seconds = {layout: contender.seconds[phase] for layout, contender in contenders.items()}
        rows.append(
            Row(
                model=name,
                precision=precision,
                phase=phase,
                images_per_s={layout: plan.batch_size / median(times) for layout, times in seconds.items()},
                memory_mib={layout: contender.memory_mib for layout, contender in contenders.items()},
                ratios={
                    layout: [theirs / ours for theirs, ours in zip(seconds[layout], seconds[OURS], strict=True)]
                    for layout in (DEFAULT, LAST)
                },
                kernel_ms=kernel_ms if phase != "forward" else {},
            )
        )
    return rows


def cells(row: Row) -> list[str]:
    speeds = [f"{row.images_per_s[layout]:.4g}" for layout in (OURS, DEFAULT, LAST)]
    ratios = [f"{middle:.2f} ({low:.2f}-{high:.2f})" for low, middle, high in map(row.ratio, (DEFAULT, LAST))]
    known = [mib for mib in row.memory_mib.values() if mib is not None]
    memory = " / ".join(f"{mib:,.0f}" for mib in known) or "-"
    kernels = " / ".join(f"{ms:.1f}" for ms in row.kernel_ms.values()) or "-"
    return [row.model, row.precision, row.phase, *speeds, *ratios, memory, kernels]


HEADINGS = (
    "model",
    "precision",
    "phase",
    OURS,
    DEFAULT,
    LAST,
    "ours / timm",
    "ours / channels-last",
    "peak MiB",
    "GPU ms",
)


def verdicts(rows: list[Row]) -> list[str]:
    """Where the targets are met, in words."""
    lines = []
    below = [f"{row.model} {row.precision} {row.phase}" for row in rows if row.ratio(DEFAULT)[1] < TARGET]
    lines.append(
        f"at least {TARGET} x timm's default layout: {len(rows) - len(below)} of {len(rows)}"
        + (f"; not {', '.join(below)}" if below else "")
    )
    slower = [f"{row.model} {row.precision} {row.phase}" for row in rows if row.ratio(row.best)[2] < 1]
    lines.append(
        "slower than timm's better layout beyond the quartiles of the rounds: "
        + (", ".join(slower) if slower else "none")
    )
    return lines


def cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return (
        f"{name}, {torch.get_num_threads()} torch threads, torch {torch.__version__}, timm {timm.__version__}, "
        f"Python {platform.python_version()}"
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Images per second of our models beside timm's, forward and training step.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default_device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--models", default=",".join(MODELS), help="names that timm has too (default: %(default)s)")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="default: %(default)s; bfloat16 by autocast")
    parser.add_argument("--phases", default=",".join(PHASES), help="default: %(default)s; on a GPU graph too")
    parser.add_argument("--compile", action="store_true", help="all three by torch.compile, which takes minutes")
    parser.add_argument("--device", default=default_device, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, help="default: 8 on CPU, 128 on a GPU")
    parser.add_argument("--resolution", type=int, help="pixels (default: each model's own)")
    parser.add_argument("--rounds", type=int, default=9, help="at least 2 (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.3, help="least time of a measurement (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch on CPU (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the rows, with every ratio, to this file")
    return parser


def read_plan(options: argparse.Namespace) -> Plan:
    """What the options ask for.

    Raises:
        UserError: A name is not known, or there are too few rounds for quartiles.
    """
    plan = Plan(
        models=tuple(options.models.split(",")),
        precisions=tuple(options.precisions.split(",")),
        device=torch.device(options.device),
        batch_size=options.batch_size or (128 if options.device.startswith("cuda") else 8),
        resolution=options.resolution,
        phases=tuple(options.phases.split(",")),
        compiled=options.compile,
        rounds=options.rounds,
        seconds=options.seconds,
    )
    in_both = [name for name in zoo.names() if name in CIFAR or timm.is_model(name)]
    for field_name, asked, known in (
        ("models", plan.models, in_both),
        ("precisions", plan.precisions, PRECISIONS),
        ("phases", plan.phases, (*PHASES, GRAPH) if plan.device.type == "cuda" else PHASES),
    ):
        for name in asked:
            if name not in known:
                raise UserError(unknown_name(field_name, name, known))
    if plan.rounds < 2:
        raise UserError(f"rounds: must be at least 2, got {plan.rounds}")
    return plan


def main() -> None:
    options = make_parser().parse_args()
    plan = read_plan(options)
    torch.set_num_threads(options.threads)
    if plan.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    print(machine(plan.device))
    how = "compiled" if plan.compiled else "eager"
    print(f"{how}, batch {plan.batch_size}, {plan.rounds} rounds; images per second, medians; ratios with quartiles\n")
    print("| " + " | ".join(HEADINGS) + " |")
    print("|" + " --- |" * 3 + " ---: |" * (len(HEADINGS) - 3))
    rows = []
    for name in plan.models:
        for precision in plan.precisions:
            for row in measure(name, precision, plan):
                rows.append(row)
                print("| " + " | ".join(cells(row)) + " |", flush=True)
    print("\n" + "\n".join(verdicts(rows)))
    if options.json:
        document = {
            "machine": machine(plan.device),
            "batch_size": plan.batch_size,
            "compiled": plan.compiled,
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
