"""Tokenizer families that can be expanded."""
