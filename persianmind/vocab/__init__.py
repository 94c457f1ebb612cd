"""Vocabulary: train, merge (SentencePiece and byte-level BPE), report. Knows text."""
