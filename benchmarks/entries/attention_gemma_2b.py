"""Causal attention of Gemma 2B over 8,192 tokens: eight wide heads share their keys and values."""

from benchmarks.entries.attention import entry

ENTRY = entry("gemma-2b", batch=1)
