"""What the processes of one run tell each other beside the training: who is there, what all of them
decide, and that one has ended.

JAX's own runtime aborts a process whose peer is gone or never came, with a page of C++, and has no
place for a reason. So every process keeps a connection to process 0, over which go JSON objects, a
line each. The system closes the connection of a process that was killed, and of a machine that
answers no more; who sees that says so in one line and ends, while the training may hang.
"""

import contextlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from train.config import differences
from train.errors import UserError

GRACE = 5.0  # seconds that a process which ends gives the others to hear why
HELLO = 5.0  # seconds that a new connection has to say who it is
VOTE = 1.0  # seconds from one question whether to stop to the next, about
MISTAKES = 8  # that are named of many
AGAIN = "start the same command again on all of them: it goes on from the last checkpoint"


class Peers:
    """The processes of a run; as it stands, of a run that has only one."""

    index = 0
    count = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.index == 0

    def gather(self, value: Any = None) -> list[Any]:
        """What all processes give here, by process; returns when all have come to it."""
        return [value]

    def end(self, line: str, code: int) -> None:
        """Has all other processes say ``line`` and exit with ``code``."""

    def asked(
        self, step: int, received: signal.Signals | None, *, last: bool = False
    ) -> signal.Signals | None:
        """The signal that asked any process to stop, at the same step on all of them.

        Args:
          step: the training step, from which on nobody stops before all have heard.
          received: the signal that asked this process.
          last: whether no step follows.
        """
        del step, last
        return received

    def agree(self, what: str, facts: dict[str, Any]) -> None:
        """Raises UserError, on every process, unless all of them have the same ``facts``."""
        first, *others = self.gather(json.loads(json.dumps(facts)))  # as the others see them
        for index, other in enumerate(others, 1):
            if found := differences(first, other):
                shown = [*found[:MISTAKES], "..."] if len(found) > MISTAKES else found
                raise UserError(
                    f"processes 0 and {index} disagree on {what}: {'; '.join(shown)}; "
                    f"start all {self.count} with the same"
                )


ALONE = Peers()


class Group(Peers):
    """One of several processes; :func:`connect` finds the others."""

    def __init__(self, index: int, count: int, connections: "dict[int, Connection]"):
        self.index, self.count, self._connections = index, count, connections
        self._inbox: dict[int, queue.SimpleQueue] = {i: queue.SimpleQueue() for i in connections}
        self._ending = threading.Lock()  # taken by whoever ends this process, and never given back
        self._heard = threading.Event()
        self._parted = False
        self._next_vote = 0  # the step
        self._voted: tuple[int, float] | None = None  # the last one, and when
        self.on_abort: Any = None  # what C calls, kept for as long as it may
        self._listeners = [
            threading.Thread(target=self._listen, args=item, daemon=True)
            for item in connections.items()
        ]
        for listener in self._listeners:
            listener.start()

    def gather(self, value=None):
        return self._gather(value)

    def _gather(self, value: Any, *, parting: bool = False) -> list[Any]:
        if not self.first:
            self._connections[0].send({"value": value})
            values = self._inbox[0].get()
            self._parted = parting
            return values
        values = [value, *(self._inbox[i].get() for i in range(1, self.count))]
        self._parted = parting  # before the others know and close their connections
        self._tell({"value": values})
        return values

    def part(self) -> None:
        """Waits for all processes; from here on none of them misses another."""
        self._gather(None, parting=True)

    def close(self) -> None:
        """Closes the connections, after :meth:`part`."""
        for connection in self._connections.values():
            connection.close()
        self._wait_for_others()

    def asked(self, step, received, *, last=False):
        # A question costs a round trip, so there is one a second; process 0 says at which step.
        if step < self._next_vote and not last:
            return None
        before, then = self._voted or (step, 0.0)
        self._voted = step, time.monotonic()
        rate = (step - before) / (self._voted[1] - then)
        # At most twice as many steps as last time: the first ones only start, and end later.
        ahead = max(1, min(int(rate * VOTE), 2 * (step - before)))
        votes = self.gather([received or 0, step + ahead])
        self._next_vote = votes[0][1]
        return next((signal.Signals(number) for number, _ in votes if number), None)

    def end(self, line, code):
        if not self._ending.acquire(blocking=False):
            time.sleep(2 * GRACE)  # somebody else ends this process meanwhile
        self._tell({"end": line, "code": code})
        if self.first:
            self._wait_for_others()
        else:
            self._heard.wait(GRACE)  # process 0 tells the others, and this one that it did

    def _tell(self, message: dict[str, Any]) -> None:
        for connection in self._connections.values():
            connection.send(message)

    def _listen(self, index: int, connection: "Connection") -> None:
        for message in connection.messages():
            if "value" in message:
                self._inbox[index].put(message["value"])
            else:
                self._heard.set()
                self._leave(message["end"], message["code"])
        if not self._parted:
            self._leave(f"error: process {index} of {self.count} of this run was lost; {AGAIN}", 1)

    def _leave(self, line: str, code: int) -> None:
        """Ends this process from outside its main thread, which may wait for the lost one."""
        if not self._ending.acquire(blocking=False):
            return
        if self.first:
            self._tell({"end": line, "code": code})
            self._wait_for_others()
        if code or self.first:
            print(line, file=sys.stderr)
        leave(code)

    def _wait_for_others(self) -> None:
        end = time.monotonic() + GRACE
        for listener in self._listeners:
            if listener is not threading.current_thread():
                listener.join(max(0.0, end - time.monotonic()))

    def lost(self) -> None:
        """Ends this process where JAX's runtime has found that another one is gone."""
        time.sleep(1)  # a listener, which knows more, is a little slower
        if not self._ending.acquire(blocking=False):
            time.sleep(2 * GRACE)  # somebody else ends this process meanwhile
        print(f"error: another process of this run was lost; {AGAIN}", file=sys.stderr)
        leave(1)


def leave(code: int) -> None:
    """Ends the process without the clean-up of JAX, which waits for processes that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Connection:
    """JSON objects over TCP, a line each."""

    def __init__(self, stream: socket.socket):
        self._stream, self._file = stream, stream.makefile("rb")
        self._sending = threading.Lock()
        # A machine that is gone closes nothing: after 20 silent seconds the system asks it.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("KEEPIDLE", 20), ("KEEPINTVL", 5), ("KEEPCNT", 3)):
            if hasattr(socket, f"TCP_{option}"):
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{option}"), value)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: dict[str, Any]) -> None:
        """Sends, if there is still anybody; that there is nobody is for the listener to notice."""
        with contextlib.suppress(OSError), self._sending:
            self._stream.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float | None) -> dict[str, Any] | None:
        """The next message; None when the connection ended, or ``seconds`` have passed."""
        self._stream.settimeout(seconds)
        try:
            return next(self.messages(), None)
        finally:
            self._stream.settimeout(None)

    def messages(self) -> Iterator[dict[str, Any]]:
        """All messages up to the end of the connection; what is no message ends it too."""
        with contextlib.suppress(OSError, ValueError):
            while (line := self._file.readline()).endswith(b"\n"):
                if not isinstance(message := json.loads(line), dict):
                    return
                yield message

    def close(self) -> None:
        """Ends the connection; whoever waits for its messages has had the last."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)  # which ends the wait of a reader
        self._stream.close()
        self._file.close()


def connect(address: str, count: int, index: int, seconds: float) -> Group:
    """Waits until all processes have come to process 0, at ``address``.

    Raises:
      UserError: on every process that has come, if one does not come within ``seconds``, or two
        disagree on how many they are or who is who.
    """
    host, _, port = address.rpartition(":")
    place = (host.strip("[]"), int(port))
    if index == 0:
        return Group(0, count, _receive(place, count, seconds))
    return Group(index, count, {0: _reach(place, count, index, seconds)})


def _reach(place: tuple[str, int], count: int, index: int, seconds: float) -> "Connection":
    end, where = time.monotonic() + seconds, f"{place[0]}:{place[1]}"
    while True:
        try:
            stream = socket.create_connection(place, timeout=HELLO)
            if stream.getsockname() != stream.getpeername():
                break
            stream.close()  # at a port where nobody listens, Linux may connect one to itself
            raise OSError("nobody there")
        except OSError as error:  # process 0, or its name, may come later
            if time.monotonic() > end:
                raise UserError(
                    f"process 0 did not answer at {where} within {seconds:.0f} s ({error}); start "
                    "it too, or name its address with --coordinator HOST:PORT"
                ) from error
            time.sleep(0.2)
    connection = Connection(stream)
    connection.send({"process": index, "processes": count})
    # Process 0 waits no longer for the others than this one, and may have started later.
    answer = connection.receive(seconds + 2 * GRACE) or {
        "error": f"process 0 at {where} ended, or is none of this program, before all {count} "
        "processes had come; see what it says"
    }
    if "all" in answer:
        return connection
    connection.close()
    raise UserError(answer["error"])


def _receive(place: tuple[str, int], count: int, seconds: float) -> "dict[int, Connection]":
    """The connections of processes 1 to ``count - 1``, once all of them are there."""
    found: dict[int, Connection] = {}
    strangers: list[Connection] = []  # of whom no place is known
    mistake, end = None, time.monotonic() + seconds
    with _listening(place[1]) as server:
        while len(found) < count - 1 and time.monotonic() < end:
            server.settimeout(max(0.01, end - time.monotonic()))
            try:
                connection = Connection(server.accept()[0])
            except TimeoutError:
                break
            hello = connection.receive(HELLO) or {}
            index, others = hello.get("process"), hello.get("processes")
            if not isinstance(index, int) or not isinstance(others, int):
                connection.close()  # somebody else's
                continue
            if others == count and 0 < index < count and index not in found:
                found[index] = connection
                continue
            strangers.append(connection)
            if mistake is None:
                end = min(end, time.monotonic() + GRACE)  # for others to come and be told
                mistake = (
                    f"process {index} was started with --num-processes {others}, and process 0 "
                    f"with {count}; give all of them the same"
                    if others != count
                    else f"two processes were started with --process-id {index}; give each its "
                    f"own, from 0 to {count - 1}"
                )
    missing = sorted({*range(1, count)} - {*found})
    if mistake is None and missing:
        who = f"process {missing[0]}" if len(missing) == 1 else f"processes {_listed(missing)}"
        mistake = (
            f"{who} of {count} did not come to {place[0]}:{place[1]} within {seconds:.0f} s; start "
            "all of them with the same --coordinator and --num-processes, or give them more time "
            "with --start-seconds"
        )
    if mistake is None:
        for connection in found.values():
            connection.send({"all": count})
        return found
    for connection in (*found.values(), *strangers):
        connection.send({"error": mistake})
        connection.close()
    raise UserError(mistake)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:MISTAKES])) + (" ..." if len(numbers) > MISTAKES else "")


def _listening(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=1024)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen at port {port} ({error.strerror}); name another in "
            "--coordinator HOST:PORT, on all processes"
        ) from error
