"""Memory, FLOPs and time from shapes; one formula each."""
