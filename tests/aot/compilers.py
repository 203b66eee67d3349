"""Whether the vendors' compilers are here: without one its tests are skipped, or must not be."""

import os
from typing import Any

import pytest

from train.targets import target

# `make test-aot` sets it, as it has installed them: there a test that is skipped shows nothing.
REQUIRED = "REQUIRE_COMPILERS"


def marks(name: str) -> list[Any]:
    """Of the tests that compile for a target.

    Raises:
      RuntimeError: its compiler is not installed, and must be.
    """
    reason = target(name).missing()
    if reason and os.environ.get(REQUIRED):
        raise RuntimeError(f"{reason} ({REQUIRED} is set, so that nothing is skipped)")
    return [pytest.mark.skip(reason=reason)] if reason else []
