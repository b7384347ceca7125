"""The cluster files in studies/cluster/: they can be read, and what they run is a command that the search accepts."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command

from nas.search import search
from nas.study.budget import Budget
from nas.study.database_url import without_password

FOLDER = Path(__file__).parents[1] / "studies" / "cluster"
CLUSTERS = ["ray-cluster.yaml", "on-premise.yaml"]
PREFIX = "python -m nas.search "


def read(name: str) -> list[dict[str, Any]]:
    return [dict(part) for part in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))]


def parse(command: str) -> dict[str, Any]:
    """The options of a search as its own parser reads them."""
    assert command.startswith(PREFIX)
    app = typer.Typer(add_completion=False)
    app.command()(search)
    return dict(get_command(app).make_context("search", shlex.split(command.removeprefix(PREFIX))).params)


def commands() -> list[str]:
    """The searches that the job and the README start."""
    lines = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    return [read("rayjob.yaml")[1]["spec"]["entrypoint"], *(line for line in lines if line.startswith(PREFIX))]


def test_there_are_commands() -> None:
    assert len(commands()) == 2


@pytest.mark.parametrize("command", commands())
def test_a_command_is_accepted_and_holds_no_password(command: str) -> None:
    options = parse(command)
    Budget.parse(options["budget"])
    assert options["ray_address"] == "auto"
    assert options["runs"].parts[1] == "shared"
    assert without_password(options["storage"]) == options["storage"]


def test_the_job_takes_its_password_from_a_secret_and_shares_one_volume() -> None:
    claim, job = read("rayjob.yaml")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        [volume] = group["template"]["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        [container] = group["template"]["spec"]["containers"]
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/shared"}]
    [variable] = groups[0]["template"]["spec"]["containers"][0]["env"]
    assert variable["name"] == "PGPASSWORD"
    secret = variable["valueFrom"]["secretKeyRef"]["name"]
    assert f"create secret generic {secret} " in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert parse(job["spec"]["entrypoint"])["workers"] <= sum(group["maxReplicas"] for group in groups[1:])


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_file_is_one_of_ray(name: str) -> None:
    """Ray's own schema is the oracle."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    [config] = read(name)
    validate_config(prepare_config(config))
    assert f"ray up studies/cluster/{name}" in (FOLDER / name).read_text(encoding="utf-8")


def test_all_files_name_the_ray_that_is_locked() -> None:
    lock = (FOLDER.parents[1] / "requirements.lock").read_text(encoding="utf-8")
    found = re.search(r"^ray==(\S+)$", lock, re.MULTILINE)
    assert found
    assert f"rayproject/ray:{found[1]}-" in (FOLDER / "ray-cluster.yaml").read_text(encoding="utf-8")
    assert read("rayjob.yaml")[1]["spec"]["rayClusterSpec"]["rayVersion"] == found[1]
    assert f"ray[default]=={found[1]}" in (FOLDER / "Dockerfile").read_text(encoding="utf-8")
