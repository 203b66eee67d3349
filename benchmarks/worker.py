"""One competitor in a process of its own, told over a pipe what to do.

    python -m benchmarks.worker MODULE COMPETITOR ARRAYS THREADS     answers commands on stdin
    python -m benchmarks.worker MODULE --prepare ARRAYS THREADS --quick|--full

A command is one line of JSON, `{"advance": n}`; the answer is one line, `{"seconds": [...],
"values": [...]}`, each list with one number a unit of work. The first line, unasked, is
`{"setup_seconds": s}`.
"""

import json
import os
import sys
import time
from typing import IO

import numpy as np

from benchmarks import entry as protocol
from benchmarks import machine


def main(arguments: list[str]) -> None:
    """Prepare an entry's arrays, or serve a competitor until stdin ends."""
    module, role, arrays, threads, *rest = arguments
    machine.end_with_parent()
    machine.pin(int(threads))
    answers = _private_stdout()
    entry = protocol.load(module)
    if role == "--prepare":
        quick = rest == ["--quick"]
        np.savez(arrays, allow_pickle=False, **entry.prepare(quick))
        flops = entry.flops(quick) if entry.flops else None
        print(json.dumps({"flops": flops}), file=answers, flush=True)
        return
    start = time.perf_counter()
    with np.load(arrays) as stored:
        runner = entry.competitors[role].build({name: stored[name] for name in stored.files})
    setup = time.perf_counter() - start
    print(json.dumps({"setup_seconds": setup}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(advance(runner, json.loads(line)["advance"])), file=answers, flush=True)


def advance(runner: protocol.Runner, units: int) -> dict[str, list[float]]:
    """Let the runner do at least so many units, and time each of its advances."""
    seconds: list[float] = []
    values: list[float] = []
    while len(values) < units:
        start = time.perf_counter()
        done = runner.advance()
        elapsed = time.perf_counter() - start
        seconds += [elapsed / len(done)] * len(done)
        values += [float(value) for value in done]
    return {"seconds": seconds, "values": values}


def _private_stdout() -> IO[str]:
    """The pipe to the coordinator; what libraries print goes to standard error instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main(sys.argv[1:])
