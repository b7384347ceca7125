"""What a trial gets of a cluster, and how many run at a time."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.execution.devices import Node, Wanted, gpus_may_be_visible, share_out
from nas.study.study import Study, StudyError
from tests.nas.runs import make_study

GIB = 2**30


def nodes_of(*sizes: tuple[int, ...]) -> list[Node]:
    """Machines of so many cores, GPUs, and GiB of each GPU's memory."""
    return [
        Node(cpus=cpus, gpus=gpus, gpu_bytes=gib * GIB if gib else None)
        for cpus, gpus, gib in ((*size, 0, 0)[:3] for size in sizes)
    ]


@pytest.mark.parametrize(
    ("sizes", "wanted", "slots", "cpus"),
    [
        ([(2,)], {"kind": "cpu"}, 2, 1),
        ([(3,), (3,)], {"kind": "cpu", "cpus": 2}, 2, 2),  # a trial never spans nodes
        ([(16, 1)], {"kind": "gpu"}, 1, 16),
        ([(64,), (32, 4)], {"kind": "gpu"}, 4, 8),  # a head without GPUs
        ([(32, 4), (8, 4)], {"kind": "gpu"}, 8, 2),
        ([(8, 8)], {"kind": "gpu", "cpus": 2}, 4, 2),
        ([(16, 1)], {"kind": "gpu", "gpus": 0.25}, 4, 4),
        ([(16, 2), (4, 1)], {"kind": "gpu", "gpus": 0.25}, 12, 1),
        ([(16, 1)], {"kind": "gpu", "gpus": 0.7}, 1, 16),  # a trial never spans GPUs
        ([(16, 1)], {"kind": "gpu", "gpus": 1 / 3}, 3, 5),
        ([(2, 1)], {"kind": "gpu", "gpus": 0.1}, 2, 1),  # a core for each
    ],
)
def test_trials_share_a_cluster_node_by_node(
    sizes: list[tuple[int, ...]], wanted: dict[str, object], slots: int, cpus: int
) -> None:
    nodes = nodes_of(*sizes)
    devices = share_out(Wanted.model_validate(wanted), nodes)
    assert (devices.slots(nodes), devices.cpus) == (slots, cpus)


@pytest.mark.parametrize(
    ("sizes", "wanted", "peak_gib", "slots"),
    [
        ([(64, 1, 80)], {}, 3, 16),  # 80 / (3 * 1.25 + 1)
        ([(64, 1, 80), (64, 1, 24)], {}, 3, 10),  # the smaller memory decides for all
        ([(8, 1, 80)], {}, 3, 8),  # a core for each
        ([(8, 1, 80)], {"cpus": 4}, 3, 2),
        ([(64, 2, 80)], {"workers": 6}, 3, 6),  # shared among no more than there are
        ([(64, 2, 80)], {"workers": 1}, 3, 2),
        ([(64, 1, 24)], {}, 100, 1),  # training cuts its batches then
        ([(64, 1)], {}, 3, 1),  # memory that is not known
    ],
)
def test_auto_packs_trials_by_the_memory_that_was_measured(
    sizes: list[tuple[int, ...]], wanted: dict[str, object], peak_gib: int, slots: int
) -> None:
    nodes = nodes_of(*sizes)
    asked = Wanted.model_validate({"kind": "gpu", "gpus": "auto", **wanted})
    assert share_out(asked, nodes).gpus == 1  # while it is measured
    assert share_out(asked, nodes, peak_bytes=peak_gib * GIB).slots(nodes) == slots


@pytest.mark.parametrize(
    ("sizes", "wanted", "slots", "charged"),
    [
        ([(4,), (3,)], {"kind": "cpu", "processes": 2}, 3, 2),  # a model never spans nodes
        ([(8,)], {"kind": "cpu", "processes": 2, "cpus": 2}, 2, 4),
        ([(64, 8), (64, 8), (64, 4)], {"kind": "gpu", "processes": 8}, 2, 8),
    ],
)
def test_several_processes_train_one_model_on_one_node(
    sizes: list[tuple[int, ...]], wanted: dict[str, object], slots: int, charged: float
) -> None:
    nodes = nodes_of(*sizes)
    devices = share_out(Wanted.model_validate(wanted), nodes)
    assert (devices.slots(nodes), devices.count) == (slots, charged)


@pytest.mark.parametrize(
    ("sizes", "wanted", "message"),
    [
        ([(32, 4), (16, 2)], {"kind": "gpu", "processes": 8}, "gpus_per_model: must be at most 4, all .* got 8"),
        (
            [(4,), (3,)],
            {"kind": "cpu", "processes": 5},
            "cpus_per_model: must be at most 4, all that a node has, got 5",
        ),
        ([(4,)], {"kind": "cpu", "processes": 3, "cpus": 2}, "cpus_per_model: must be at most 2 with 2 cores each"),
    ],
)
def test_more_processes_than_a_node_has_devices_are_refused(
    sizes: list[tuple[int, ...]], wanted: dict[str, object], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        share_out(Wanted.model_validate(wanted), nodes_of(*sizes))


@given(
    sizes=st.lists(st.tuples(st.integers(1, 128), st.integers(1, 8), st.integers(1, 192)), min_size=1, max_size=5),
    gpus=st.sampled_from(["auto", None]) | st.floats(0.001, 1),
    peak_bytes=st.integers(0, 200 * GIB),
)
def test_no_node_is_shared_out_twice(
    sizes: list[tuple[int, int, int]], gpus: float | str | None, peak_bytes: int
) -> None:
    """Beside each other all trials of a node have no more than it has; its GPUs are charged once at most."""
    wanted = Wanted.model_validate({"kind": "gpu", "gpus": gpus})
    devices = share_out(wanted, nodes_of(*sizes), peak_bytes=peak_bytes)
    for size in sizes:
        [node] = nodes_of(size)
        slots = devices.slots([node])
        assert slots * devices.cpus <= node.cpus
        assert slots * devices.count <= node.gpus + 1e-9
        assert devices.resources["GPU"] * 10_000 == pytest.approx(round(devices.resources["GPU"] * 10_000))


def test_a_node_that_leaves_lowers_what_fits_and_one_that_joins_raises_it() -> None:
    devices = share_out(Wanted(kind="cpu", cpus=2), nodes_of((4,), (4,)))
    assert [devices.slots(nodes_of(*sizes)) for sizes in ([(4,)], [(4,), (4,), (5,)], [])] == [2, 6, 0]


def test_readers_are_as_many_as_cores_are_left() -> None:
    [gpu, cpu] = [Wanted(kind="gpu"), Wanted(kind="cpu")]
    assert gpu.num_loaders(share_out(gpu, nodes_of((8, 1)))) == 7
    assert cpu.num_loaders(share_out(cpu, nodes_of((8,)))) == 0
    assert Wanted(kind="gpu", loaders=2).num_loaders(share_out(gpu, nodes_of((8, 1)))) == 2


def test_more_cores_than_any_node_has_are_refused() -> None:
    with pytest.raises(StudyError, match="cpus_per_trial: must be at most 2, all that a node has, got 3"):
        share_out(Wanted(kind="cpu", cpus=3), nodes_of((2,), (2,)))


def test_gpu_time_without_a_gpu_is_refused_with_a_budget_that_would_work() -> None:
    with pytest.raises(StudyError, match="budget: must be in devices that are visible.*--budget 6cpu-minutes"):
        share_out(Wanted(kind="gpu"), nodes_of((2,)))


@pytest.mark.parametrize("share", [0, 1.5, -1, "half", "nan", [1]])
def test_a_part_of_a_gpu_that_cannot_be_is_refused(share: object) -> None:
    with pytest.raises(ValueError, match="must be auto, or a part of one GPU from 0.001 to 1, got"):
        make_study(budget="1gpu-days", gpus_per_trial=share)


def test_a_part_of_a_gpu_is_no_matter_of_cpu_time() -> None:
    with pytest.raises(ValueError, match="gpus_per_trial: must not be given for a budget of CPU time, got 0.25"):
        make_study(gpus_per_trial="0.25")
    study = make_study(budget="1gpu-days", gpus_per_trial="0.25")
    assert study.gpus_per_trial == 0.25
    assert Study.model_validate(study.model_dump()) == study


@pytest.mark.slow
def test_no_gpu_is_visible_where_the_environment_says_so() -> None:
    code = "from nas.execution.devices import gpus_may_be_visible; print(gpus_may_be_visible())"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "False\n"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_visible_where_there_is_one() -> None:
    assert gpus_may_be_visible()
