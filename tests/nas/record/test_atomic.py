"""Files that are replaced whole: what lies in their place, and what killed writers left."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nas.execution.signals import interruptible
from nas.record.atomic import part_of, replace_text, replacing
from nas.record.lock import lock_folder
from tests.nas.programs import ROOT

_WRITER = """
import sys
from pathlib import Path
from nas.record.atomic import replacing
with replacing(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("writes", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("mine", encoding="utf-8")
    return path


def test_a_link_in_place_of_the_file_or_of_its_part_is_not_followed(tmp_path: Path, victim: Path) -> None:
    path = tmp_path / "file"
    path.symlink_to(victim)
    part_of(path).symlink_to(victim)
    replace_text(path, "new")
    assert victim.read_text(encoding="utf-8") == "mine"
    assert (path.read_text(encoding="utf-8"), path.is_symlink()) == ("new", False)
    assert set(tmp_path.iterdir()) == {path, victim}


def test_a_link_in_place_of_the_drivers_note_is_not_followed(tmp_path: Path, victim: Path) -> None:
    (tmp_path / ".driver").symlink_to(victim)
    with lock_folder(tmp_path):
        assert victim.read_text(encoding="utf-8") == "mine"
        assert not (tmp_path / ".driver").is_symlink()


def test_what_a_killed_writer_left_goes_with_the_next_and_that_of_others_stays(tmp_path: Path) -> None:
    path = tmp_path / "a[1]*.html"
    command = [sys.executable, "-c", _WRITER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writes\n"
        [part] = tmp_path.iterdir()
        replace_text(path, "first")
        assert part.exists()  # its writer lives
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    elsewhere = tmp_path / f".{path.name}.not-{socket.gethostname()}.{writer.pid}.part"
    elsewhere.touch()
    replace_text(path, "second")
    assert set(tmp_path.iterdir()) == {path, elsewhere}


def test_an_interrupted_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_text(path, "old")

    def write_half() -> None:
        with replacing(path) as part:
            part.write_text("half", encoding="utf-8")
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), interruptible():  # a shell's job in the background ignores SIGINT
        write_half()
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["old"]
