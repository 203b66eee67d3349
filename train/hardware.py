"""What this machine is, for those who compare numbers: different processors round differently."""

import platform
from pathlib import Path


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, such as "AMD EPYC, family 25 model 1"; elsewhere the system's word.

    Virtual machines leave the number out of the name, and then "AMD EPYC" is one of several with
    vectors of 256 or of 512 bits: family and model tell them apart.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts: dict[str, str] = {}
    for key, _, value in (line.partition(":") for line in lines):
        facts.setdefault(key.strip(), value.strip())  # of the first core
    if "model name" not in facts:
        return platform.machine()
    numbered = {"cpu family", "model"} <= facts.keys()
    kind = f", family {facts['cpu family']} model {facts['model']}" if numbered else ""
    return facts["model name"] + kind
