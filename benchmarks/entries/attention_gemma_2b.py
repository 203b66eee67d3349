"""Causal attention of Gemma 2B: eight wide heads share their keys and values.

Half of its 8,192 tokens, for which the stock function alone would take half an hour.
"""

from benchmarks.entries.attention import entry

ENTRY = entry("gemma-2b", batch=1, tokens=4096)
