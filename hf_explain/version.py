"""The version, where neither torch nor transformers has to be imported to read it."""

__version__ = "0.1.0.dev0"
