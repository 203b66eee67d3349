"""Who the processes of a run are, how they find each other, and what they tell each other."""

import contextlib
import re
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.train import tiny
from tests.train.jobs import free_port
from train import loop
from train.distributed import Distributed
from train.errors import UserError
from train.peers import connect


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--process-id 1", "--process-id are of runs in many processes; add --distributed"),
        ("--distributed --process-id 1", "--coordinator and --num-processes missing"),
        (
            "--distributed --coordinator a:1 --num-processes 2 --process-id 2",
            "--process-id 2: with --num-processes 2 it is one of 0 to 1",
        ),
        (
            "--distributed --coordinator a:b --num-processes 2 --process-id 1",
            "--coordinator a:b is no HOST:PORT, such as node1:1234",
        ),
        (
            "--distributed --coordinator a:1 --num-processes 0 --process-id 0",
            "--num-processes 0 must be at least 1",
        ),
        (
            "--distributed --coordinator a:1 --num-processes 1 --process-id 0 --start-seconds 0",
            "--start-seconds 0.0 must be more than 0",
        ),
    ],
)
def test_wrong_flags(call, flags, message):
    code, out, err = call("run", "digits-mlp", *flags.split())
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_one_device_needs_no_others(tmp_path):
    with pytest.raises(UserError, match="one device; use pmap, shard_map or mesh"):
        loop.run(tiny.recipe("digits-mlp"), workdir=tmp_path / "r", distributed=Distributed())


SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_NODELIST": "gpu[04-07]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}


@pytest.fixture
def environment(monkeypatch) -> Callable[..., None]:
    """The environment of this process, with these variables and none of a launcher's."""

    def given(**variables: str) -> None:
        for name in {*SLURM, *OPEN_MPI, "JAX_COORDINATOR_ADDRESS", "KUBERNETES_SERVICE_HOST"}:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return given


def test_launchers_say_who_is_who(environment):
    """Where JAX looks for it is private: this test notices when it moves."""
    environment(**SLURM)
    assert Distributed().found() == ("gpu04:61517", 4, 2)
    environment(**OPEN_MPI)
    assert Distributed().found() == ("10.96.0.1:62624", 3, 1)
    assert Distributed("here:12", 2, 0).found() == ("here:12", 2, 0)
    environment()
    with pytest.raises(UserError, match=r"no coordinator was found; give --coordinator HOST:PORT "):
        Distributed().found()


# --- The connections ------------------------------------------------------------------------------


def together(*functions: Callable[[], Any]) -> list[Any]:
    """What functions return or raise that wait for each other."""
    results: list[Any] = [None] * len(functions)

    def call(index: int) -> None:
        try:
            results[index] = functions[index]()
        except UserError as error:
            results[index] = str(error)

    threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def who(*pairs: tuple[int, int], seconds: float = 30.0) -> list:
    """What becomes of processes (index, count) that look for each other."""
    address = f"localhost:{free_port()}"
    return together(*(partial(connect, address, n, i, seconds) for i, n in pairs))


def test_all_hear_what_all_say():
    groups: list[Any] = who((0, 3), (2, 3), (1, 3))
    assert [group.index for group in groups] == [0, 2, 1]
    said = together(*(partial(g.gather, {"i": g.index}) for g in groups))
    assert said == [[{"i": 0}, {"i": 1}, {"i": 2}]] * 3
    # Only one is asked to stop, and all hear of it before the same step.
    for step in range(1, 4):
        asked = [signal.SIGTERM if g.index == 2 and step > 1 else None for g in groups]
        answers = together(*(partial(g.asked, step, a) for g, a in zip(groups, asked, strict=True)))
        assert len(set(answers)) == 1
    assert together(*(partial(g.asked, 4, None, last=True) for g in groups)) == [None] * 3
    together(*(g.part for g in groups))
    together(*(g.close for g in groups))


def test_who_does_not_come():
    (alone,) = who((0, 3), seconds=0.5)
    assert alone.startswith("processes 1, 2 of 3 did not come to localhost:")
    (alone,) = who((1, 2), seconds=0.5)
    assert re.match(r"process 0 did not answer at localhost:\d+ within 0 s \(", alone)


def test_who_is_not_meant():
    told = who((0, 3), (1, 2), seconds=2.0)
    counts = "process 1 was started with --num-processes 2, and process 0 with 3"
    assert told == [f"{counts}; give all of them the same"] * 2
    told = who((0, 3), (1, 3), (1, 3), seconds=2.0)
    assert set(told) == {
        "two processes were started with --process-id 1; give each its own, from 0 to 2"
    }
    port = free_port()
    taken = pytest.raises(UserError, match=f"cannot listen at port {port} .*; name another in")
    with socket.create_server(("", port)), taken:
        connect(f"localhost:{port}", 2, 0, 1.0)


def test_strangers_at_the_port_are_left_alone():
    port = free_port()
    answers: list[bytes] = []

    def stranger_first() -> Any:
        while not answers:
            with (
                contextlib.suppress(ConnectionRefusedError),  # until process 0 listens
                socket.create_connection(("localhost", port)) as stream,
            ):
                stream.sendall(b"GET / HTTP/1.1\n")
                answers.append(stream.recv(1))
        return connect(f"localhost:{port}", 2, 1, 30.0)

    first, second = together(lambda: connect(f"localhost:{port}", 2, 0, 30.0), stranger_first)
    assert answers == [b""]
    together(first.part, second.part)
    together(first.close, second.close)
