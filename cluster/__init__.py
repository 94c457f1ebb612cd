"""Ray: the same training function on several machines. `submit.py` is the entry; see docs/cluster.md."""
