"""Ray: the same training function on several machines."""
