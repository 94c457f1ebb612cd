"""The language of sources, commands and tests that name none."""

DEFAULT_LANGUAGE = "fa"
