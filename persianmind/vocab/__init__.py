"""Vocabulary expansion: learn pieces of a language on a base tokenizer, add them exactly, report and plan."""
