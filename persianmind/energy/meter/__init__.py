"""Counting joules: one meter per node, in a process of its own."""
