"""Where text lies: local files, any fsspec URL, the hub, installed packages."""
