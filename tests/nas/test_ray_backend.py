"""What a trial gets of a cluster, and that a cluster that is not there is named."""

from pathlib import Path

import pytest

from nas.data import DataError, DataInfo, open_dataset
from nas.ray_backend import Data, RayBackend, Wanted
from nas.study import StudyError


@pytest.fixture(scope="module")
def info() -> DataInfo:
    return open_dataset("digits", resolution=32).info


def shared_out(info: DataInfo, nodes: list[dict[str, float]], **wanted: object) -> RayBackend:
    backend = RayBackend(info, wanted=Wanted.model_validate(wanted), address=None, scratch=Path("nowhere"))
    backend._share_out(nodes)
    return backend


@pytest.mark.parametrize(
    ("nodes", "wanted", "workers", "cpus"),
    [
        ([{"CPU": 2.0}], {"kind": "cpu"}, 2, 1),
        ([{"CPU": 3.0}, {"CPU": 3.0}], {"kind": "cpu", "cpus": 2}, 2, 2),  # a trial never spans nodes
        ([{"CPU": 8.0}], {"kind": "cpu", "workers": 3}, 3, 1),
        ([{"CPU": 16.0, "GPU": 1.0}], {"kind": "gpu"}, 1, 16),
        ([{"CPU": 64.0}, {"CPU": 32.0, "GPU": 4.0}], {"kind": "gpu"}, 4, 8),  # a head without GPUs
        ([{"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 4.0}], {"kind": "gpu"}, 8, 2),
        ([{"CPU": 8.0, "GPU": 8.0}], {"kind": "gpu", "cpus": 2}, 4, 2),
    ],
)
def test_trials_share_a_cluster_node_by_node(
    info: DataInfo, nodes: list[dict[str, float]], wanted: dict[str, object], workers: int, cpus: int
) -> None:
    backend = shared_out(info, nodes, **wanted)
    assert (backend.num_workers, backend.devices.cpus) == (workers, cpus)


def test_more_cores_than_any_node_has_are_refused(info: DataInfo) -> None:
    with pytest.raises(StudyError, match="cpus_per_trial: must be at most 2, all that a node has, got 3"):
        shared_out(info, [{"CPU": 2.0}, {"CPU": 2.0}], kind="cpu", cpus=3)


def test_gpu_time_without_a_gpu_is_refused_with_a_budget_that_would_work(info: DataInfo) -> None:
    with pytest.raises(StudyError, match="budget: must be in devices that are visible.*--budget 6cpu-minutes"):
        shared_out(info, [{"CPU": 2.0}], kind="gpu")


@pytest.mark.parametrize(
    ("address", "reason"),
    [("ray://localhost:10001", "run it on a machine of the cluster"), ("127.0.0.1:9", "refused")],
)
def test_a_cluster_that_cannot_be_used_is_refused_in_one_line(info: DataInfo, address: str, reason: str) -> None:
    backend = RayBackend(info, wanted=Wanted(kind="cpu"), address=address, scratch=Path("nowhere"))
    with pytest.raises(StudyError, match=f"ray_address: must be a running cluster, got '{address}' .*{reason}"):
        backend.__enter__()


def test_a_node_with_other_data_is_refused(info: DataInfo) -> None:
    Data(name="digits", resolution=32, fingerprint=info.fingerprint, num_loaders=0).open()
    with pytest.raises(DataError, match="data: must be the same on every node"):
        Data(name="digits", resolution=32, fingerprint="0" * 16, num_loaders=0).open()
