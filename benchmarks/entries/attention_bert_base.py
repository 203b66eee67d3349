"""Attention of BERT's smaller size, over padded sequences."""

from benchmarks.entries.attention import entry

ENTRY = entry("bert-base", batch=4)
