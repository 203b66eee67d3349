"""Causal attention of Llama 3 8B over 8,192 tokens, with two of its eight groups of heads.

The stock function holds several arrays of all scores, of which those of all heads would take 9 GB.
"""

from benchmarks.entries.attention import entry

ENTRY = entry("llama-8b", batch=1, kv_heads=2)
