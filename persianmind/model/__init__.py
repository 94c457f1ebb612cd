"""Model: load, split vocabulary tables, initialise rows, adapters, loss, export. Knows no data."""
