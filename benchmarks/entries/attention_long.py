"""Causal attention over a long text: four heads share their keys and values.

A quarter of its 32,768 tokens: over all, one array of the stock function's weights has 17 GB.
"""

from benchmarks.entries.attention import entry

ENTRY = entry("long", batch=1, tokens=8192)
