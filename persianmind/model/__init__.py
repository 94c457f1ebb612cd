"""Model: load, split vocabulary tables, initialise new embeddings, adapters, loss, export. Knows no data."""
