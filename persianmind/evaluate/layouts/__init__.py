"""Readers of published tests, a class each (base.py)."""

from persianmind.evaluate.layouts.base import Layout, layouts

__all__ = ["Layout", "layouts"]
