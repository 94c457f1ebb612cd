"""The optimizer step over ranks, behind a small protocol."""
