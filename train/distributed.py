"""One run in many processes, on one machine or many, through `jax.distributed`.

Every process runs the same command, has its own devices and reads its own rows of the data; process
0 writes the files of the run. Which process this is comes from flags, or from what SLURM, Open MPI,
Kubernetes or a TPU pod tell their processes, where JAX looks for it.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax

from train.errors import NonFinite, UserError
from train.peers import GRACE, Group, Peers, connect, leave
from train.shutdown import Stopped

HEARTBEAT_SECONDS = 40  # after which JAX gives up a process that stands still but is not dead
ENDING_SECONDS = 20  # that processes wait for each other at the end
FLAGS = "--coordinator HOST:PORT --num-processes N --process-id I"
SOURCES = (
    "SLURM (SLURM_JOB_ID, SLURM_PROCID, ...), Open MPI (OMPI_MCA_orte_hnp_uri, "
    "OMPI_COMM_WORLD_RANK, ...), Kubernetes (with the Python package kubernetes) and TPU pods"
)


@dataclass(frozen=True)
class Distributed:
    """Where process 0 is, how many there are, and which this is; None where it is to be found."""

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    start_seconds: float = 45.0  # that processes wait for each other at the start

    def __post_init__(self):
        given = {
            "--coordinator": self.coordinator,
            "--num-processes": self.num_processes,
            "--process-id": self.process_id,
        }
        missing = [flag for flag, value in given.items() if value is None]
        if 0 < len(missing) < len(given):
            raise UserError(
                f"{' and '.join(missing)} missing: --coordinator HOST:PORT, --num-processes N and "
                "--process-id I are given together, or none of them under SLURM and the like"
            )
        if self.num_processes is not None and self.num_processes < 1:
            raise UserError(f"--num-processes {self.num_processes} must be at least 1")
        if self.process_id is not None and not 0 <= self.process_id < (self.num_processes or 0):
            raise UserError(
                f"--process-id {self.process_id}: with --num-processes {self.num_processes} it is "
                f"one of 0 to {(self.num_processes or 0) - 1}"
            )
        if self.coordinator is not None and not _is_address(self.coordinator):
            raise UserError(
                f"--coordinator {self.coordinator} is no HOST:PORT, such as node1:1234: the name "
                "of process 0's machine and a free port there"
            )
        if not 0 < self.start_seconds < float("inf"):
            raise UserError(f"--start-seconds {self.start_seconds} must be more than 0")

    def found(self) -> tuple[str, int, int]:
        """Coordinator, number of processes and index of this one.

        Raises:
          UserError: no flags were given, and the environment tells nothing.
        """
        if self.coordinator and self.num_processes and self.process_id is not None:
            return self.coordinator, self.num_processes, self.process_id
        # Private, but what jax.distributed.initialize calls, which tells nobody what it found.
        from jax._src.clusters import ClusterEnv

        try:
            coordinator, count, index, _ = ClusterEnv.auto_detect_unset_distributed_params(
                os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None, None, None, None
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(f"--distributed: {error}; give {FLAGS} instead") from error
        if coordinator is None or count is None or index is None:
            raise UserError(
                f"--distributed: no coordinator was found; give {FLAGS}, or start the processes "
                f"by what JAX knows: {SOURCES}"
            )
        return coordinator, count, index


def results_only() -> None:
    """Keeps standard output for results: Gloo has something to say to file descriptor 1."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextlib.contextmanager
def joined(options: Distributed | None, facts: dict[str, Any]) -> Iterator[Peers]:
    """The processes of this run, while the context is open; of one process, where there are no
    options.

    An exception inside ends all processes: those that do not meet it themselves say why, in a line.

    Args:
      options: who they are.
      facts: what must be the same on all of them.

    Raises:
      UserError: they do not all come, or their facts differ.
    """
    if options is None:
        yield Peers()
        return
    coordinator, count, index = options.found()
    peers = connect(coordinator, count, index, options.start_seconds)
    try:
        peers.agree("the command", facts)
        _start_jax(options, coordinator, count, index, peers)
        yield peers
    except Stopped:
        _finish(peers)
        raise
    except BaseException as error:
        _end(peers, error)
        raise
    _finish(peers)


def _start_jax(
    options: Distributed, coordinator: str, count: int, index: int, peers: Group
) -> None:
    # XLA aborts the process when another one is lost. A listener of `peers` is mostly faster; where
    # it is not, the line that it would have said is said before the process is gone.
    peers.on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: peers.lost())
    ctypes.CDLL(None).signal(signal.SIGABRT, peers.on_abort)
    # Its handler of SIGTERM would replace ours, which saves and leaves.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator,
        count,
        index,
        # With flags a process has all devices that it sees; SLURM and Open MPI give each its own.
        cluster_detection_method="deactivate" if options.coordinator else None,
        initialization_timeout=60,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=ENDING_SECONDS,
    )


def _finish(peers: Group) -> None:
    peers.part()
    jax.distributed.shutdown()
    peers.close()


def _end(peers: Group, error: BaseException) -> None:
    """Tells the other processes; this one ends as its caller wants, but waits for nobody."""
    if isinstance(error, ValueError | RuntimeError):
        # As a step raises that another process had a part in: where that one is lost, a listener
        # ends this process meanwhile, and says so.
        time.sleep(GRACE)
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:1000]
    if not isinstance(error, UserError | NonFinite | OSError):
        said = f"process {peers.index} of {peers.count} failed: {type(error).__name__}: {said}"
    line, code = f"error: {said}", 2 if isinstance(error, UserError) else 1
    peers.end(line, code)
    atexit.register(leave, code)


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16
