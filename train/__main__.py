"""``python -m train``."""

import os
import sys
from pathlib import Path

from train.cli import main

# What one command has compiled the next one need not: JAX reads these when it is imported.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "zoo-from-scratch" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

sys.exit(main())
