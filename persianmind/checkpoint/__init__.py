"""Checkpoints: commit, verify, reshard. Knows files and state dicts only."""
