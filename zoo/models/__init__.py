"""One file a model family: its config, its presets, its module."""
