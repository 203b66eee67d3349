"""Programs compiled for real, for an H100 and five kinds of TPU, by the vendors' own compilers."""
