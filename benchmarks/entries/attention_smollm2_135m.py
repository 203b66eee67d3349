"""Causal attention of SmolLM2, of several documents in a row, three query heads on one of keys."""

from benchmarks.entries.attention import entry

ENTRY = entry("smollm2-135m", batch=1)
