"""Evaluation: perplexity and bits per byte; generation. Knows the model."""
