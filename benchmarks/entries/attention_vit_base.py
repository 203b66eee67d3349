"""Attention of ViT-B/16, over the patches of an image and its class token."""

from benchmarks.entries.attention import entry

ENTRY = entry("vit-base", batch=8)
