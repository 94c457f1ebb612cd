"""Vocabulary expansion: learn Persian pieces on a base tokenizer, add them exactly, report and plan."""
