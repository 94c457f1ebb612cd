"""Shipped suites, a YAML file each, and the prompts of `health`."""
