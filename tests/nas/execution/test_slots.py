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
slots._LOOK_EVERY = 0.05
slots._HEAD_PATIENCE = 2.0
asked, begun, enough, never = [], threading.Event(), threading.Event(), threading.Event()

def hang():
    begun.set()
    never.wait()

def answer():
    asked.append(True)
    if len(asked) == 80:  # twice as long as it is waited for an answer
        enough.set()
    return 1

count = {"never_returns": hang, "answers": answer}[sys.argv[2]]
with slots.Slots(count, head=sys.argv[1], number=1):
    (enough if sys.argv[3] == "runs" else begun).wait()
"""


def run(head: str, *, count: str, until: str = "runs") -> tuple[int, str]:
    command = [sys.executable, "-c", _PROGRAM, head, count, until]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("listens", "count", "until"),
    [(False, "answers", "runs"), (True, "never_returns", "runs"), (True, "never_returns", "ends")],
)
def test_a_head_that_answers_nothing_ends_the_program_even_where_a_question_never_returns(
    listens: bool, count: str, until: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = "{}:{}".format(*server.getsockname())
        if not listens:
            server.close()
        code, said = run(head, count=count, until=until)
    said_of = f"error: ray_address: head {head} must keep answering, got nothing for 2 s; "
    assert said == f"{said_of}the record is whole, and the same command on a running cluster goes on\n"
    assert code == 2


def test_a_head_that_answers_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert run("{}:{}".format(*server.getsockname()), count="answers") == (0, "")
