"""The processor's name as Linux gives it, and what stands in for it elsewhere."""

import platform

from train import result
from train.hardware import processor


def test_the_name_that_linux_gives(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Abacus: 9\n\nmodel name\t: Abacus: 9\n")
    assert processor(cpuinfo) == "Abacus: 9"


def test_kinds_of_one_name_are_told_apart(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    core = "cpu family\t: 25\nmodel\t\t: {}\nmodel name\t: AMD EPYC\n"
    cpuinfo.write_text(core.format(1) + "\n" + core.format(17))
    assert processor(cpuinfo) == "AMD EPYC, family 25 model 1"


def test_where_there_is_no_name(tmp_path):
    (tmp_path / "cpuinfo").write_text("Hardware\t: a board of another architecture\n")
    assert processor(tmp_path / "cpuinfo") == platform.machine()
    assert processor(tmp_path / "nothing") == (platform.processor() or platform.machine())


def test_a_result_names_it():
    assert processor() in result.device()
