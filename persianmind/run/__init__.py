"""The run folder: every path, record and identity of a run."""
