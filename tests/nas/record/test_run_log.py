"""The log of a run: it stays small, and who reads it meanwhile loses nothing."""

import logging
from pathlib import Path

import pytest

from nas.record import run_log
from nas.record.run_log import NUM_EARLIER, last_lines, log_to

LIMIT = 1000  # bytes
_LOG = logging.getLogger("nas.tests")


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "MOST_BYTES", LIMIT)


def write(path: Path, *numbers: int) -> None:
    with log_to(path):
        for number in numbers:
            _LOG.info("line %04d", number)


def numbers_in(lines: list[str]) -> list[int]:
    return [int(line.rpartition(" ")[2]) for line in lines]


def test_it_keeps_a_few_files_of_a_limited_size(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    write(path, *range(500))
    earlier = [f"run.log.{number}" for number in range(1, NUM_EARLIER + 1)]
    assert {file.name for file in tmp_path.iterdir()} == {"run.log", *earlier}
    assert all(file.stat().st_size <= LIMIT for file in tmp_path.iterdir())
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in (*reversed(earlier), "run.log")]
    kept = numbers_in("".join(texts).splitlines())
    assert kept == list(range(kept[0], 500))


def test_a_driver_that_goes_on_appends(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    write(path, 1)
    write(path, 2)
    assert numbers_in(last_lines(path, 5)) == [1, 2]


def test_the_last_lines_reach_back_into_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    for number in range(200):
        write(path, number)
        assert numbers_in(last_lines(path, 5)) == list(range(max(0, number - 4), number + 1))


def test_who_has_it_open_reads_on_when_it_is_renamed(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    write(path, 0)
    with path.open(encoding="utf-8") as reader:
        assert numbers_in(reader.read().splitlines()) == [0]
        write(path, *range(1, 50))
        rest = numbers_in(reader.read().splitlines())
    assert rest == list(range(1, len(rest) + 1))
    assert 10 < len(rest) < 49  # the others are in a new file


@pytest.mark.parametrize("number", [0, -1])
def test_no_lines_are_none(tmp_path: Path, number: int) -> None:
    write(tmp_path / "run.log", 1)
    assert last_lines(tmp_path / "run.log", number) == []


def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "run.log", 5) == []
    (tmp_path / "run.log").mkdir()
    assert last_lines(tmp_path / "run.log", 5) == []


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_bytes(b"one\n\xff\xfe two\n")
    assert last_lines(tmp_path / "run.log", 5) == ["one", "\ufffd\ufffd two"]
