"""Finals whose models are trained by two processes each, one of which is killed, and then the driver."""

from pathlib import Path

import pytest

from nas.record.run_folder import open_run
from nas.record.trials import LeaseEnd, TrialState
from tests.nas.finals.runs import make_search
from tests.nas.programs import Program, epochs_seen

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray_2"), pytest.mark.timeout(3600)]

EPOCHS = 6
OPTIONS = ("--budget", "9cpu-hours", "--seeds", "1", "--models", "front", "--references", "none")
TOGETHER = (*OPTIONS, "--epochs", str(EPOCHS), "--cpus-per-model", "2", "--set", "recipe.precision=float32")


def test_each_training_is_there_once_and_charged_once(tmp_path: Path) -> None:
    search, folder = tmp_path / "search", tmp_path / "search" / "finish"
    make_search(search, max_trials=3).record.close()

    def start(name: str) -> Program:
        return Program(search, *TOGETHER, logs=tmp_path / name, module="nas.finish")

    with start("killed") as program:
        program.wait_until(lambda: epochs_seen(folder) >= 1)
        program.kill_member()
        seen = epochs_seen(folder)
        program.wait_until(lambda: epochs_seen(folder) > seen + 1)
        program.kill()
    with start("whole") as program:
        outcome = program.wait()
    assert outcome.code == 0, outcome.err
    record = open_run(folder).record
    assert all(trial.state is TrialState.COMPLETE and trial.num_epochs == EPOCHS for trial in record)
    assert len({trial.architecture.digest for trial in record}) == len(list(record))
    leases = [lease for trial in record for lease in trial.progress.leases]
    assert [lease.end for lease in leases].count(LeaseEnd.LOST) == 1
    charged = sum(lease.device_seconds for lease in leases)
    overhead = record.notes.overhead_device_seconds
    assert record.spent_seconds == pytest.approx(overhead + record.lost_seconds + charged)
