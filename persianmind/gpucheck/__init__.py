"""`make gpu-check`: what only a machine with GPUs can show, measured by one command in a few minutes."""
