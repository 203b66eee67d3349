"""SIGTERM and Ctrl-C: save and leave, within seconds, whatever the program is doing.

Python runs a signal handler only between two bytecodes, and the XLA compiler may hold the main
thread for minutes. So the C-level handler wakes a thread of ours through a socket; while there is
nothing to save the thread ends the process itself, and during training it leaves that to the loop.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT_CODE = {signal.SIGTERM: 0, signal.SIGINT: 130}


class Stopped(Exception):
    """The run was asked to stop, and saved what it had."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


class Shutdown:
    """Watches for a request to stop while its context is open; inert outside the main thread.

    Args:
      say: shows a line.
      tell: has the other processes of a run say a line and exit with a code.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        tell: Callable[[str, int], None] = lambda line, code: None,
    ):
        self.say, self.tell = say, tell
        self.received: signal.Signals | None = None
        self._saving = False

    @property
    def requested(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """With which the process ends: 0 after SIGTERM, 130 after Ctrl-C, as shells expect."""
        return EXIT_CODE[self.received] if self.received else 0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Inside, the loop itself notices :attr:`requested` and saves."""
        self._saving = True
        try:
            yield
        finally:
            self._saving = False

    def __enter__(self) -> "Shutdown":
        self._active = threading.current_thread() is threading.main_thread()
        if self._active:
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            self._before = {number: signal.signal(number, self._noted) for number in SIGNALS}
            self._fd_before = signal.set_wakeup_fd(self._writer.fileno())
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        if self._active:
            signal.set_wakeup_fd(self._fd_before)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._writer.close()  # ends the thread

    def _noted(self, number: int, frame) -> None:
        """The thread does the work; a handler must exist for the signal to reach it."""

    def _watch(self) -> None:
        while received := self._reader.recv(1):
            if received[0] not in SIGNALS:
                continue
            first, self.received = self.received is None, signal.Signals(received[0])
            if not self._saving or not first:
                line = "stopped: nothing new to save"
                self.tell(line, self.exit_code)
                self.say(line)
                sys.stderr.flush()
                os._exit(self.exit_code)
        self._reader.close()
