"""Bytes to records, one format each."""
