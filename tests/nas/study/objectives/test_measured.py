"""Objectives that a device measures: of real models, on this processor."""

import pytest
import torch
from torch import nn

from metaformer.errors import UserError
from metaformer.network.model import build
from nas.execution.worker import device_name
from nas.study.objectives import MeasuredObjective, Objectives, choose, find, measured_names
from nas.study.objectives.base import register_objective
from nas.study.objectives.memory import _peak_tensor_bytes
from nas.training.errors import TrainingError
from nas.training.measure import measure_objectives
from tests.nas.runs import make_study

CPU = torch.device("cpu")
SPACE = make_study().make_space()


def measured(name: str) -> MeasuredObjective:
    objective = find(name)
    assert isinstance(objective, MeasuredObjective)
    return objective


@pytest.mark.parametrize("name", measured_names())
def test_every_measured_objective_gives_a_positive_number_of_a_real_model(name: str) -> None:
    found = measure_objectives(SPACE.smallest("macs"), [name], device=CPU, device_name=device_name(CPU))
    assert list(found.values) == [name]
    assert found.values[name] > 0
    assert found.device == device_name(CPU)
    assert measured(name).text(found.values[name]).split()[-1] in ("ms", "MiB")


def test_peak_memory_is_that_of_the_tensors_alive_at_once() -> None:
    """Weights, input and two outputs: the first output is freed before the third is there."""
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(3)))
    x = torch.zeros(1, 64)
    weights, row = 3 * 4 * 64 * 64, 4 * 64
    assert _peak_tensor_bytes(model, x) == weights + 3 * row  # type: ignore[arg-type]


def test_peak_memory_is_the_same_each_time_and_grows_with_the_model() -> None:
    small, large = (
        measure_objectives(arch, ["peak_memory"], device=CPU, device_name="x").values["peak_memory"]
        for arch in (SPACE.smallest("params"), SPACE.references()["poolformer_s12"])
    )
    again = measure_objectives(SPACE.smallest("params"), ["peak_memory"], device=CPU, device_name="x")
    assert again.values["peak_memory"] == small < large


def test_peak_memory_is_at_least_weights_and_input() -> None:
    arch = SPACE.references()["poolformer_s12"]
    model = build(arch).eval()
    held = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    peak = measured("peak_memory").measure(model, resolution=arch.resolution, device=CPU) * 2**20
    assert held + 4 * 3 * arch.resolution**2 < peak < 10 * held


def test_a_measurement_leaves_no_trace_in_the_model() -> None:
    arch = SPACE.smallest("macs")
    model = build(arch).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in measured_names():
        measured(name).measure(model, resolution=arch.resolution, device=CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.training


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("latency", "3ms", 3.0),
        ("latency", "250us", 0.25),
        ("batch_latency", "0.5 ms", 0.5),
        ("latency", "1s", 1000.0),
        ("peak_memory", "200MiB", 200.0),
        ("peak_memory", "1.5GiB", 1536.0),
    ],
)
def test_a_limit_is_a_number_with_a_unit(name: str, text: str, value: float) -> None:
    assert measured(name).parse_limit(text) == pytest.approx(value)


@pytest.mark.parametrize(("name", "text"), [("latency", "3"), ("latency", "-3ms"), ("peak_memory", "3ms")])
def test_what_is_no_limit_is_refused(name: str, text: str) -> None:
    with pytest.raises(UserError, match=rf"^max_{name}: must be a number above 0 and one of .*, got '{text}'$"):
        measured(name).parse_limit(text)


def test_an_objective_that_no_device_measures_cannot_be_asked_of_one() -> None:
    with pytest.raises(TrainingError, match=r"^objectives: must be one that a device measures, got 'params'$"):
        measure_objectives(SPACE.smallest("macs"), ["params"], device=CPU, device_name="x")


def test_a_list_of_objectives_gives_their_values_in_its_order() -> None:
    goals: Objectives = choose(["macs", "accuracy"])
    trial = Half()
    assert goals.values(trial) == (trial.macs, 0.5)
    assert goals.values(trial, accuracy=0.75) == (trial.macs, 0.75)
    with pytest.raises(ValueError, match=r"^latency: must be known and finite, got None$"):
        choose(["accuracy", "latency"]).values(trial)


class Half:
    """A candidate of the smallest architecture."""

    def __init__(self) -> None:
        from metaformer.cost import count_cost

        self.architecture = SPACE.smallest("macs")
        cost = count_cost(self.architecture)
        self.params, self.macs = cost.params, cost.macs
        self.val_accuracy: float | None = 0.5
        self.measured: dict[str, float] = {}


def test_an_objective_is_registered_once() -> None:
    with pytest.raises(ValueError, match=r"^objective: must be registered once, got 'latency' again$"):
        register_objective("latency")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_measures_all_of_them() -> None:
    device = torch.device("cuda")
    found = measure_objectives(SPACE.smallest("macs"), measured_names(), device=device, device_name=device_name(device))
    assert all(value > 0 for value in found.values.values())
