"""PersianMind: bring an open LLM to your own language on the GPUs you own."""

__version__ = "0.1.0"
