"""Talking to a model on a terminal: an exported folder, or a run that may still be training."""
