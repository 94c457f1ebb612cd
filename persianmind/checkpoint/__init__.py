"""Checkpoints: whole or absent, verified before use, and fit for another number of ranks.

It knows files and state dicts. It is given its rank (`group.RankGroup`) and imports no training code.
"""
