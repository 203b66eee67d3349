"""Causal attention of the GPT that is trained here, over a context so short that nothing is cut."""

from benchmarks.entries.attention import entry

ENTRY = entry("gpt-nano", batch=12)
