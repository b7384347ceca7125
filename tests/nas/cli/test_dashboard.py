"""Optuna's dashboard on a run, asked over HTTP."""

import json
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from metaformer.errors import UserError
from nas import dashboard
from nas.record.run_folder import Run, open_run
from nas.record.view.shown_files import ShownFiles
from nas.record.view.shown_study import new_storage
from nas.results.report_files import write_report
from nas.results.words import objective_titles
from nas.study.lease import Measurement, Report
from tests.nas.programs import PATIENCE, listening_to_ctrl_c
from tests.nas.runs import make_run

EVERY = "0.0.0.0"  # noqa: S104  # no server of a test listens on it


@dataclass
class Server:
    """A dashboard in a process of its own."""

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        return urlsplit(self.address).port or 80

    def headers(self, path: str, *, host: str) -> tuple[int, dict[str, str]]:
        """Status and headers of an answer to somebody who asks for another host."""
        with closing(HTTPConnection(urlsplit(self.address).netloc, timeout=20)) as connection:
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            answer.read()
            return answer.status, dict(answer.getheaders())

    def ask(self, path: str, *, method: str = "GET") -> tuple[int, str]:
        """Status and text of an answer."""
        connection = HTTPConnection(urlsplit(self.address).netloc, timeout=PATIENCE)
        with closing(connection):
            connection.request(method, path, body=None if method == "GET" else "{}")
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("runs") / "shown_<b>", max_trials=4)
    write_report(run)
    return run


@contextmanager
def serve(run: Run) -> Iterator[Server]:
    """A dashboard on a run, which Ctrl-C ends."""
    command = [sys.executable, "-m", "nas.dashboard", str(run.folder.path), "--port", "0"]
    with listening_to_ctrl_c():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout
            yield Server(process, process.stdout.readline().split("/ (")[0])
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, out, errors) == (0, "ended\n", "")  # Ctrl-C is no error


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[Server]:
    with serve(run) as server:
        yield server


@pytest.mark.slow
def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server.address.startswith("http://127.0.0.1:")
    other = socket.socket()
    with other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", int(server.address.rpartition(":")[2])))


def test_it_lists_the_study_with_its_trials(server: Server, run: Run) -> None:
    (study,) = json.loads(server.ask("/api/studies")[1])["study_summaries"]
    assert study["directions"] == ["maximize", "minimize", "minimize"]
    assert study["study_name"] == run.name
    detail = json.loads(server.ask(f"/api/studies/{study['study_id']}?after=0")[1])
    assert detail["objective_names"] == ["val_accuracy", "params", "macs"]
    note = detail["trials"][0]["note"]["body"]
    assert "hand-designed: poolformer\\_s12" in note
    assert {"key": "hand-designed", "value": "poolformer_s12"} in detail["trials"][0]["user_attrs"]
    assert "| stage | blocks | token mixer | width |" in note
    assert note.endswith("--pick 0")
    curve = [report.val_accuracy for report in run.record.trials[0].progress.curve]
    assert [point["value"] for point in detail["trials"][0]["intermediate_values"]] == curve
    shown = {trial["number"]: (trial["state"], trial.get("values")) for trial in detail["trials"]}
    states = {"complete": "Complete", "failed": "Fail"}
    assert shown == {
        trial.number: (states[trial.state], list(run.study.goals.values(trial)) if trial.state == "complete" else None)
        for trial in run.record
    }


def test_the_study_says_what_was_searched_and_shows_its_front(server: Server, run: Run) -> None:
    (study,) = json.loads(server.ask("/api/studies")[1])["study_summaries"]
    detail = json.loads(server.ask(f"/api/studies/{study['study_id']}?after=0")[1])
    note = detail["note"]["body"]
    assert note.startswith("# shown\\_\\<b\\>\n")
    assert "| Budget | " in note
    assert "| trial | mixers | accuracy | parameters | MACs | test |" in note
    assert f"python -m nas.export {shlex.quote(str(run.folder.path))} --pick knee" in note
    assert {"key": "Objectives", "value": objective_titles(run.study)} in detail["user_attrs"]
    assert "identity" not in {each["key"] for each in detail["user_attrs"]}
    figures = {each["id"]: json.loads(each["graph_object"]) for each in detail["plotly_graph_objects"]}
    assert set(figures) == {"params-accuracy", "macs-accuracy"}
    names = {text["text"] for text in figures["params-accuracy"]["layout"]["annotations"]}
    assert any(name.startswith("poolformer_s12") for name in names)
    traces = {trace.get("name"): trace for trace in figures["params-accuracy"]["data"]}
    assert traces["other trials"]["hovertemplate"] == "trial %{customdata}<extra></extra>"
    assert traces["hand-designed"]["hovertext"][0].startswith("<b>trial 0: poolformer_s12</b><br>val ")


def test_files_of_the_run_are_artifacts_that_have_an_origin_of_their_own(server: Server, run: Run) -> None:
    (study,) = json.loads(server.ask("/api/studies")[1])["study_summaries"]
    detail = json.loads(server.ask(f"/api/studies/{study['study_id']}?after=0")[1])
    files = {each["filename"]: f"/artifacts/{study['study_id']}/{each['artifact_id']}" for each in detail["artifacts"]}
    assert set(files) == {"report.html", "front.csv", "trials.csv", "curves.csv"}
    for name, address in files.items():
        assert f"[{name}]({address})" in detail["note"]["body"]
        assert server.ask(address) == (200, (run.folder.path / name).read_text(encoding="utf-8"))
    headers = server.headers(files["report.html"], host=server.address.split("/")[2])[1]
    assert headers["Content-Security-Policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert "Access-Control-Allow-Origin" not in headers
    assert server.ask(f"/artifacts/{study['study_id']}/0-0")[0] == 404


def test_by_how_much_a_trial_exceeds_a_limit_is_known_when_its_device_has_measured(tmp_path: Path) -> None:
    changes: dict[str, object] = {"objectives": ("accuracy", "latency"), "measured_limits": {"latency": 1.0}}
    run = make_run(tmp_path / "run", max_trials=2, **changes)
    storage = new_storage()
    trial = run.record.start(run.space.smallest("macs"))
    [shown] = dashboard.show_runs(storage, ShownFiles(), [tmp_path / "run"])
    assert storage.get_all_trials(0)[-1].system_attrs["constraints"][-1] == 0.0
    trial.add_measurement(Measurement(values={"latency": 3.0}, device="a made-up device"))
    run.record.save(trial)
    shown.update()
    assert storage.get_all_trials(0)[-1].system_attrs["constraints"][-1] == 2.0


@pytest.mark.slow
def test_ctrl_c_ends_it_also_where_the_tests_run_in_the_background_of_a_shell(run: Run) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with serve(run) as server:
            assert server.ask("/dashboard")[0] == 200
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_shows_its_page(server: Server) -> None:
    status, text = server.ask("/dashboard")
    assert status == 200
    assert "<html" in text.lower()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/api/studies/1"), ("POST", "/api/trials/1/tell"), ("PUT", "/api/studies/1/note")]
)
def test_it_changes_nothing(server: Server, run: Run, method: str, path: str) -> None:
    status, text = server.ask(path, method=method)
    assert status == 403
    assert "for looking at a study, not for changing it" in text
    assert [trial.state for trial in open_run(run.folder.path).record] == [trial.state for trial in run.record]


def test_a_folder_of_runs_shows_those_that_can_be_read_and_follows_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"^run: must be the folder of a run, or hold folders of runs, got"):
        dashboard.find_runs(tmp_path)
    first = make_run(tmp_path / "a", max_trials=2)
    broken = make_run(tmp_path / "b", max_trials=1)
    broken.record.close()
    with broken.folder.database.open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(UserError, match=r"^storage: must"):
        dashboard.show_runs(new_storage(), ShownFiles(), [tmp_path / "b"])
    storage = new_storage()
    [shown] = dashboard.show_runs(storage, ShownFiles(), dashboard.find_runs(tmp_path))
    assert capsys.readouterr().err.startswith("left out b: storage: must")
    trial = first.record.start(first.space.smallest("macs"))
    shown.update()
    assert (len(storage.get_all_trials(0)), storage.get_all_trials(0)[-1].state.name) == (
        len(first.record.trials),
        "RUNNING",
    )
    trial.add_epoch(Report(epoch=1, val_accuracy=0.5, train_loss=1.0, checkpoint="x"))
    first.record.end(trial, "complete")
    shown.update()
    last = storage.get_all_trials(0)[-1]
    assert (last.values, last.intermediate_values) == (list(first.study.goals.values(trial)), {1: 0.5})


def test_a_port_in_use_is_refused_with_a_free_one(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port: must be free on 127\.0\.0\.1, got {port} \(.*\); free: (\d+)$"):
            dashboard.dashboard(str(run.folder.path), port=port)


def test_an_address_of_another_machine_is_refused(run: Run) -> None:
    with pytest.raises(UserError, match=r"port: must be free on 192\.0\.2\.1, got 8080 \(.*\)$"):
        dashboard.dashboard(str(run.folder.path), host="192.0.2.1", allow_remote=True)


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_spec("optuna_dashboard")
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'dashboard: needs a package that is not here: pip install "metaformer-nas\['):
        dashboard.dashboard(str(tmp_path))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST:{port}", 200),
        ("evil.example:{port}", 403),
        ("localhost.evil.example:{port}", 403),
        ("127.0.0.1", 403),
        ("127.0.0.1:1", 403),
        ("127.0.0.2:{port}", 403),
        ("192.0.2.1:{port}", 403),
        ("", 403),
    ],
)
def test_only_its_own_host_is_answered_so_that_no_page_elsewhere_reads_it(
    server: Server, host: str, status: int
) -> None:
    for path in ("/api/studies", "/dashboard"):
        assert server.headers(path, host=host.format(port=server.port))[0] == status


def test_every_answer_has_security_headers(server: Server) -> None:
    for path, host in (("/dashboard", server.address.split("/")[2]), ("/api/studies", "evil.example")):
        headers = server.headers(path, host=host)[1]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("host", [EVERY, "192.0.2.1", "::", "é", "example.org", "", "x" * 5000, "a\x1bb"])
def test_another_address_asks_for_a_flag_and_says_what_it_means(tmp_path: Path, host: str) -> None:
    with pytest.raises(UserError, match="^host: must be .* --allow-remote, .*, got ") as caught:
        dashboard.dashboard(str(tmp_path), host=host)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("host", ["é..b", "x" * 300, "a b"])
def test_an_address_that_is_none_is_one_line(run: Run, host: str) -> None:
    with pytest.raises(UserError, match="^(port: must be free on|host: must be an address of this machine)"):
        dashboard.dashboard(str(run.folder.path), host=host, allow_remote=True)


def test_a_server_on_all_addresses_answers_for_numbers_and_no_names() -> None:
    is_ours = dashboard.hosts_of(EVERY, 8080)
    assert is_ours("192.0.2.1:8080")
    assert is_ours("localhost:8080")
    assert not is_ours("evil.example:8080")
    assert not is_ours("192.0.2.1:80")
    assert not is_ours(":8080")
