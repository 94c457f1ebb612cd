"""What is particular to one language: its script, its spelling, its prompt."""
