"""The version, told here and nowhere else; a release's tag is checked against it."""

__version__ = "0.2.0"
