"""Causal attention of GPT-2's smallest size."""

from benchmarks.entries.attention import entry

ENTRY = entry("gpt2-small", batch=2)
