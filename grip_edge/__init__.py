"""grip-edge: put a token-pruned vision-language model on a small device."""

__version__ = "0.1.0"
