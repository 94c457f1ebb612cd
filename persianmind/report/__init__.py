"""The HTML page of a run. Reads files only."""
