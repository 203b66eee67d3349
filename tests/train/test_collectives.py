"""What is moved between devices: read off handwritten programs, and off one that is compiled."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from train.collectives import Moved, collectives, group_size, num_bytes

HEAD = "HloModule jit_step, is_scheduled=true, num_partitions=8\n"
ADD = """
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}
"""


def entry(*lines: str) -> str:
    body = "".join(f"  {line}\n" for line in lines)
    return f"\nENTRY %main (x: f32[8,16]) -> f32[8,16] {{\n{body}}}\n"


@pytest.mark.parametrize(
    ("line", "kind", "size", "wire"),
    [
        (
            "ROOT %r = f32[8,16]{1,0} all-reduce(%x), replica_groups={{0,1,2,3},{4,5,6,7}}, "
            "to_apply=%add",
            "all-reduce",
            512,
            768,
        ),
        (
            "ROOT %r = bf16[64,16]{1,0:T(8,128)(2,1)} all-gather(%x), replica_groups=[1,8]<=[8], "
            "dimensions={0}",
            "all-gather",
            2048,
            1792,
        ),
        (
            "ROOT %r = f32[2,16]{1,0} reduce-scatter(%x), replica_groups=mesh['x'=2,'y'=4] {'y'}, "
            "dimensions={0}, to_apply=%add",
            "reduce-scatter",
            128,
            384,
        ),
        (  # no groups: all eight
            "ROOT %r = (f32[1,16]{1,0}, /*index=1*/f32[1,16]{1,0}) all-to-all(%a, %b)",
            "all-to-all",
            128,
            112,
        ),
        (
            "ROOT %r = s8[8,16]{1,0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}",
            "collective-permute",
            128,
            128,
        ),
        (  # what they start from stands before what they give
            "%s = ((f32[8,16]{1,0}, bf16[8]{0}), (f32[16,16]{1,0}, bf16[16]{0})) "
            "all-gather-start(%x, %y), replica_groups=[4,2]<=[8]",
            "all-gather",
            1056,
            528,
        ),
        (
            "%s = (f32[4]{0}, f32[4]{0:S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) "
            "collective-permute-start(%x), source_target_pairs={{0,1}}",
            "collective-permute",
            16,
            16,
        ),
        (  # but for this one
            "%s = f32[8,16]{1,0} all-reduce-start(%x), replica_groups={{0,1}}, to_apply=%add",
            "all-reduce",
            512,
            512,
        ),
    ],
)
def test_one(line, kind, size, wire):
    ended = "ROOT %d = f32[8,16]{1,0} done(%s)"
    assert collectives(HEAD + ADD + entry(line, ended)) == {kind: Moved(1, size, wire, 1)}


def test_asynchronous_ones_count_where_they_start():
    text = HEAD + entry(
        "%s = (f32[8,16]{1,0}, f32[16,16]{1,0}) all-gather-start(%x), replica_groups=[4,2]<=[8]",
        "ROOT %d = f32[16,16]{1,0} all-gather-done(%s)",
    )
    assert collectives(text)["all-gather"].count == 1


BODY = """
%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[4]{0} get-tuple-element(%p), index=1
  %one = s32[] constant(INCREMENT)
  %next = s32[] add(%i, %one)
  %r = f32[4]{0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add
  ROOT %t = (s32[], f32[4]{0}) tuple(%next, %r)
}

%condition (p.1: (s32[], f32[4])) -> pred[] {
  %p.1 = (s32[], f32[4]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %n = s32[] constant(7)
  ROOT %lt = pred[] compare(%i.1, %n), direction=LT
}
"""
LOOP = (
    "%zero = s32[] constant(1)",
    "%copy = s32[] copy(%zero)",
    "%state = (s32[], f32[4]{0}) tuple(%copy, %x)",
)
WHILE = "ROOT %w = (s32[], f32[4]{0}) while(%state), condition=%condition, body=%body"


def test_a_loop_counts_its_trips():
    """The compiler's word for it, or a condition that says i < 7 for an i from 1."""

    def count(increment: str, more: str = "") -> Moved:
        body = BODY.replace("INCREMENT", increment)
        return collectives(HEAD + ADD + body + entry(*LOOP, WHILE + more))["all-reduce"]

    assert count("1") == Moved(6, 96, 96, 1)
    assert count("2").count == 3
    assert count("1", ', backend_config={"known_trip_count":{"n":"5"}}').count == 5


def test_a_loop_whose_trips_the_data_decide_counts_once(caplog):
    body = BODY.replace("INCREMENT", "1").replace("s32[] constant(7)", "s32[] parameter(1)")
    assert collectives(HEAD + ADD + body + entry(*LOOP, WHILE))["all-reduce"].count == 1
    assert "w: how often it runs is not known" in caplog.text


FUSIONS = """
%start (p: f32[4]) -> f32[8] {
  %p = f32[4]{0} parameter(0)
  %g = f32[8]{0} all-gather(%p), channel_id=3, replica_groups=[4,2]<=[8]
  ROOT %c = f32[8]{0} custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%beside (p.1: f32[4]) -> f32[8] {
  %p.1 = f32[4]{0} parameter(0)
  ROOT %g.1 = f32[8]{0} all-gather(%p.1), channel_id=3, replica_groups=[4,2]<=[8]
}

%plain (p.2: f32[4]) -> f32[12] {
  %p.2 = f32[4]{0} parameter(0)
  ROOT %g.2 = f32[12]{0} all-gather(%p.2), channel_id=4, replica_groups=[4,2]<=[8]
}

%all-reduce-scatter.1 (p.3: f32[8]) -> f32[4] {
  %p.3 = f32[8]{0} parameter(0)
  %g.3 = f32[8]{0} all-reduce(%p.3), channel_id=5, replica_groups=[4,2]<=[8], to_apply=%add
  ROOT %slice = f32[4]{0} dynamic-slice(%g.3, %i)
}
"""


def test_fusions_of_a_tpu():
    """One all-gather in two fusions, one by itself, and a reduce-scatter."""
    text = HEAD + ADD + FUSIONS
    text += entry(
        "%a = f32[8]{0} fusion(%x), kind=kCustom, calls=%start",
        "%b = f32[8]{0} fusion(%a), kind=kOutput, calls=%beside",
        "%c = f32[12]{0} fusion(%b), kind=kOutput, calls=%plain",
        "ROOT %d = f32[4]{0} fusion(%c), kind=kCustom, calls=%all-reduce-scatter.1",
    )
    assert collectives(text) == {
        "all-gather": Moved(2, 80, 40, 2),
        "reduce-scatter": Moved(1, 16, 16, 1),
    }


def test_every_branch_counts():
    text = (
        HEAD
        + ADD
        + """
%left (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %r = f32[4]{0} all-reduce(%p), replica_groups={{0,1}}, to_apply=%add
}

%right (q: f32[4]) -> f32[4] {
  ROOT %q = f32[4]{0} parameter(0)
}
"""
    )
    for names in (
        "branch_computations={%left, %right}",
        "true_computation=%left, false_computation=%right",
    ):
        line = f"ROOT %c = f32[4]{{0}} conditional(%i, %x, %x), {names}"
        assert collectives(text + entry(line))["all-reduce"].count == 1


def test_what_is_no_program():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        collectives("all-reduce")


def test_sizes():
    assert num_bytes("f32[8,16]{1,0:T(8,128)S(1)}") == 512
    assert num_bytes("(pred[3], bf16[2,2]{1,0}, f8e4m3fn[5], s4[8], token[], c64[])") == 28
    assert group_size("replica_groups=mesh['x'=4,'y'=2] {'x':(1)2,'y'}", 8) == 4
    assert group_size("replica_groups={}", 8) == 8


def test_a_compiled_program():
    """What `program` asks for, as each of eight devices with 16 x 16 numbers takes part in it."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.collectives_worker"],
        env=os.environ | {"PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    mine = 16 * 16 * 4
    assert collectives(done.stdout) == {
        "all-reduce": Moved(5 + 1, 5 * mine + 4, round(1.75 * 5 * mine) + 7, 2),
        "all-gather": Moved(5, 5 * 8 * mine, 5 * 7 * mine, 1),
        "reduce-scatter": Moved(5, 5 * mine, 5 * 7 * mine, 1),
        "all-to-all": Moved(6, 6 * mine, 6 * mine * 7 // 8, 1),
        "collective-permute": Moved(1, mine, mine, 1),
    }
