"""A head that stops answering, in whichever way."""

import socket
import subprocess
import sys

import pytest

from tests.nas.programs import PATIENCE, ROOT

_PROGRAM = """
import sys
import threading
from nas.execution import slots
slots._LOOK_EVERY = 0.02
slots._HEAD_PATIENCE = 0.2
never = threading.Event()
count = {"asked_of_ray": never.wait, "answers": lambda: 1}[sys.argv[2]]
with slots.Slots(count, head=sys.argv[1], number=1):
    never.wait(1 if sys.argv[2] == "answers" else None)
"""


def run(head: str, count: str) -> tuple[int, str]:
    command = [sys.executable, "-c", _PROGRAM, head, count]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(("listens", "count"), [(True, "asked_of_ray"), (False, "answers")])
def test_a_head_that_answers_nothing_ends_the_program_even_where_a_question_never_returns(
    listens: bool, count: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = "{}:{}".format(*server.getsockname())
        if not listens:
            server.close()
        code, said = run(head, count)
    said_of = f"error: ray_address: head {head} must keep answering, got nothing for 0 s; "
    assert said == f"{said_of}the record is whole, and the same command on a running cluster goes on\n"
    assert code == 2


def test_a_head_that_answers_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert run("{}:{}".format(*server.getsockname()), "answers") == (0, "")
