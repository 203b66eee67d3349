"""What a compiled program moves between devices, read off its text.

    collectives(compiled.as_text())["all-gather"]     # Moved(count=192, bytes=..., ...)

The text is what XLA prints of an optimised module, of CPUs, GPUs or TPUs: computations, each a list
of instructions, one of which may call others. A collective counts as often as it runs: times the
trips of every loop around it, which the compiler writes beside the loop or which follow from the
loop's condition. Of a conditional every branch counts, so that the sum is what is moved at most.

One that runs asynchronously is several instructions: it counts where it starts. A TPU's compiler
also fuses collectives into the computations beside them, of which these forms are known: an
all-reduce of which each device keeps its part is a reduce-scatter, and an all-gather that is
spread over several fusions is one.
"""

import functools
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Moved:
    """The collectives of one kind in one run of a program, as each device takes part in them."""

    count: int = 0  # how often they run
    bytes: int = 0  # of their results: of an all-gather all parts, of a reduce-scatter one
    wire: int = 0  # bytes that a device sends where all stand in a ring
    static: int = 0  # instructions in the text

    def __add__(self, other: "Moved") -> "Moved":
        return Moved(
            self.count + other.count,
            self.bytes + other.bytes,
            self.wire + other.wire,
            self.static + other.static,
        )

    def times(self, trips: int) -> "Moved":
        """The same in a loop."""
        return Moved(self.count * trips, self.bytes * trips, self.wire * trips, self.static)


def collectives(hlo_text: str) -> dict[str, Moved]:
    """Kind of collective -> what is moved by it; kinds that the program has none of are left out.

    Raises:
      ValueError: the text is none of an HLO module.
    """
    module = _Module(hlo_text)
    found = module.moved(module.entry)
    return {kind: found[kind] for kind in KINDS if kind in found}


@dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    rest: str  # operands and attributes

    @functools.cached_property
    def operands(self) -> list[str]:
        inside = self.rest[: _closing(self.rest)]
        return re.findall(r"%?([\w.-]+)(?=[,)]|$)", re.sub(r"/\*.*?\*/", "", inside))

    def attribute(self, name: str) -> str | None:
        """A word, as the name of a computation or a number."""
        match = re.search(rf"\b{name}=%?([\w.-]+)", self.rest)
        return match and match[1]


@dataclass
class _Computation:
    name: str
    instructions: dict[str, _Instruction] = field(default_factory=dict)
    root: str = ""


class _Module:
    """The computations of a text, and what is moved by each."""

    def __init__(self, text: str):
        self.computations: dict[str, _Computation] = {}
        self.entry = ""
        self._moved: dict[str, dict[str, Moved]] = {}
        match = re.search(r"^HloModule.*?\b(?:num_partitions|replica_count)=(\d+)", text)
        self.num_devices = int(match[1]) if match else 1
        current = None
        for line in text.splitlines():
            if header := re.match(r"(ENTRY )?%?([\w.-]+) .*\{$", line):
                current = self.computations[header[2]] = _Computation(header[2])
                self.entry = header[2] if header[1] else self.entry
            elif current is not None and (parsed := _instruction(line)):
                current.instructions[parsed.name] = parsed
                if line.lstrip().startswith("ROOT "):
                    current.root = parsed.name
        if not self.entry:
            raise ValueError("no ENTRY computation in it: is it what compiled.as_text() gives?")

    def moved(self, name: str) -> dict[str, Moved]:
        """By one run of a computation, and all that it calls."""
        if name not in self._moved:
            found: dict[str, Moved] = {}
            for part in self._parts(self.computations[name]):
                for kind, moved in part.items():
                    found[kind] = found.get(kind, Moved()) + moved
            self._moved[name] = found
        return self._moved[name]

    def _parts(self, computation: _Computation) -> Iterator[dict[str, Moved]]:
        spread: list[tuple[tuple, bool, dict[str, Moved]]] = []  # key, whether it starts, moved
        for instruction in computation.instructions.values():
            if kind := _kind(instruction.opcode):
                yield {kind: self._one(kind, instruction)}
            elif instruction.opcode == "while":
                yield self._loop(computation, instruction)
            elif instruction.opcode == "fusion":
                called = instruction.attribute("calls") or ""
                if called.startswith("all-reduce-scatter"):
                    yield {"reduce-scatter": self._one("reduce-scatter", instruction, called)}
                else:
                    spread += self._fused(called)
            elif instruction.opcode in ("call", "async-start"):
                yield self.moved(_called(instruction))
            elif instruction.opcode == "conditional":
                for branch in _branches(instruction):
                    yield self.moved(branch)
        # An asynchronous collective of a TPU stands in every fusion that it runs beside: as many
        # count as start. What starts nowhere is ordinary.
        starts = Counter(key for key, starting, _ in spread if starting)
        for key, starting, moved in spread:
            if starting or not starts[key]:
                yield moved

    def _fused(self, name: str) -> Iterator[tuple[tuple, bool, dict[str, Moved]]]:
        computation = self.computations[name]
        lines = computation.instructions.values()
        starting = any('custom_call_target="AsyncCollectiveStart"' in line.rest for line in lines)
        for line in lines:
            if kind := _kind(line.opcode):
                moved = self._one(kind, line)
                yield (kind, line.attribute("channel_id"), moved.bytes), starting, {kind: moved}
            elif line.opcode == "fusion":
                yield from self._fused(line.attribute("calls") or "")

    def _one(self, kind: str, instruction: _Instruction, called: str | None = None) -> Moved:
        result = instruction.type
        # All but all-reduce give what they start from first, and then what will be there.
        if instruction.opcode.endswith("-start") and kind != "all-reduce":
            result = _elements(result)[1]
        size, inner = num_bytes(result), instruction
        if called is not None:  # the all-reduce in the fusion knows the group
            lines = self.computations[called].instructions.values()
            inner = next((line for line in lines if _kind(line.opcode)), instruction)
        n = group_size(inner.rest, self.num_devices)
        wire = {
            "all-reduce": 2 * size * (n - 1) / n,
            "all-gather": size * (n - 1) / n,
            "reduce-scatter": size * (n - 1),
            "all-to-all": size * (n - 1) / n,
            "ragged-all-to-all": size * (n - 1) / n,
        }.get(kind, size)
        return Moved(1, size, round(wire), 1)

    def _loop(self, computation: _Computation, loop: _Instruction) -> dict[str, Moved]:
        inside = self.moved(loop.attribute("body") or "")
        if not inside:
            return {}
        trips = self._trips(computation, loop)
        if trips is None:
            logger.warning("%s: how often it runs is not known; it counts once", loop.name)
        return {kind: moved.times(1 if trips is None else trips) for kind, moved in inside.items()}

    def _trips(self, computation: _Computation, loop: _Instruction) -> int | None:
        """How often a loop runs; None where that is not decided before it does."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
            return int(known[1])
        # TPUs' compilers do not say: i < end, i from a constant, plus a constant at each trip.
        condition = self.computations[loop.attribute("condition") or ""]
        body = self.computations[loop.attribute("body") or ""]
        compared = self._compared(condition)
        if compared is None:
            return None
        index, end = compared
        carried = computation.instructions.get((loop.operands or [""])[0])
        after = body.instructions[body.root]
        if carried is None or carried.opcode != "tuple" or after.opcode != "tuple":
            return None
        start = self._constant(computation, carried.operands[index])
        step = self._increment(body, after.operands[index])
        if start is None or not step:
            return None
        return max(0, math.ceil((end - start) / step))

    def _compared(self, condition: _Computation) -> tuple[int, int] | None:
        """Which element of the loop's state must be less than what."""
        root = condition.instructions[condition.root]
        direction = root.attribute("direction")
        if root.opcode == "fusion":
            inner = self.computations[root.attribute("calls") or ""]
            direction = inner.instructions[inner.root].attribute("direction")
        if direction not in ("LT", "LE") or len(root.operands) != 2:
            return None
        left = condition.instructions.get(root.operands[0])
        end = self._constant(condition, root.operands[1])
        if left is None or left.opcode != "get-tuple-element" or end is None:
            return None
        return int(left.attribute("index") or 0), end + (direction == "LE")

    def _constant(self, computation: _Computation, name: str) -> int | None:
        found = computation.instructions.get(name)
        while found is not None and found.opcode in ("copy", "bitcast", "copy-done", "copy-start"):
            found = computation.instructions.get(found.operands[0])
        if found is None or found.opcode != "constant":
            return None
        match = re.match(r"(-?\d+)\)", found.rest)
        return int(match[1]) if match else None

    def _increment(self, body: _Computation, name: str) -> int | None:
        found = body.instructions.get(name)
        while found is not None and found.opcode in ("copy", "bitcast"):
            found = body.instructions.get(found.operands[0])
        if found is None:
            return None
        if found.opcode == "fusion":
            inner = self.computations[found.attribute("calls") or ""]
            root = inner.instructions[inner.root]
            if root.opcode == "add":
                constants = [self._constant(inner, operand) for operand in root.operands]
                constants += [self._constant(body, operand) for operand in found.operands]
                return next((c for c in constants if c is not None), None)
        if found.opcode != "add":
            return None
        constants = (self._constant(body, operand) for operand in found.operands)
        return next((c for c in constants if c is not None), None)


def num_bytes(type_text: str) -> int:
    """Bytes of a type as HLO writes it, ``f32[8,16]{1,0}`` or a tuple of such."""
    bits = 0
    for dtype, shape in re.findall(r"\b([a-z]\w*)\[([\d,<=]*)\]", type_text):
        digits = re.search(r"\d+", dtype)
        width = 8 if dtype == "pred" else int(digits[0]) if digits else 0  # a token has no size
        bits += width * math.prod(int(n.strip("<=")) for n in shape.split(",") if n)
    return bits // 8


def group_size(attributes: str, num_devices: int) -> int:
    """How many devices take part together, by the three forms of ``replica_groups``."""
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes):  # groups, devices of each
        return int(match[1])
    if match := re.search(r"replica_groups=mesh\[(.*?)\]\s*\{(.*?)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        # An axis, or so many devices of it: 'x':(1)2.
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return match[1].count(",") + 1
    return num_devices


def _kind(opcode: str) -> str | None:
    name = opcode.removesuffix("-start")
    return name if name in KINDS else None


def _called(instruction: _Instruction) -> str:
    return instruction.attribute("calls") or instruction.attribute("to_apply") or ""


def _branches(instruction: _Instruction) -> list[str]:
    if match := re.search(r"branch_computations=\{(.*?)\}", instruction.rest):
        return re.findall(r"[\w.-]+", match[1])
    names = (instruction.attribute(f"{which}_computation") for which in ("true", "false"))
    return [name for name in names if name]


def _instruction(line: str) -> _Instruction | None:
    match = re.match(r"\s+(?:ROOT )?%?([\w.-]+) = ", line)
    if not match:
        return None
    text = line[match.end() :]
    end = _closing(text[1:]) + 2 if text.startswith("(") else text.find(" ")
    opcode = re.match(r"\s*([\w-]+)\(", text[end:])
    if end < 0 or not opcode:
        return None
    return _Instruction(match[1], text[:end], opcode[1], text[end + opcode.end() :])


def _closing(text: str) -> int:
    """Where the bracket that was opened before ``text`` is closed."""
    depth = 1
    for match in re.finditer(r"[(){}]", text):
        depth += 1 if match[0] in "({" else -1
        if depth == 0:
            return match.start()
    return len(text)


def _elements(tuple_type: str) -> list[str]:
    """The types in a tuple's type."""
    parts, depth, start = [], 0, 1
    for match in re.finditer(r"[(){}\[\],]", tuple_type):
        if match[0] in "({[":
            depth += 1
        elif match[0] in ")}]":
            depth -= 1
        if (match[0] == "," and depth == 1) or depth == 0:
            parts.append(tuple_type[start : match.start()])
            start = match.end()
    return parts
