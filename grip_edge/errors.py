"""The exceptions of grip-edge, and who sees them.

    GripEdgeError            base: catch this to catch everything that grip-edge raises on purpose
    ├── UserError            the request cannot be met as asked: a wrong option, image, question or budget (exit code 2)
    │   ├── ImageError       the image cannot be read or is not acceptable
    │   ├── BudgetError      the budget is malformed or outside the bundle's range
    │   ├── PromptError      the question is empty or does not fit the cache
    │   └── MissingExtraError  an optional package is not installed; the message holds the pip command
    ├── BundleError          the bundle is missing, incomplete, damaged, foreign or too new (exit code 2)
    └── ParityError          an exported graph does not agree with its reference (exit code 1)

Every message is one line: what was expected, what came, what to do.
"""

from __future__ import annotations


class GripEdgeError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 1


class UserError(GripEdgeError):
    """The request cannot be met as asked."""

    exit_code = 2


class ImageError(UserError):
    """The image cannot be read or is not acceptable."""


class BudgetError(UserError):
    """The budget is malformed or outside the bundle's range."""


class PromptError(UserError):
    """The question is empty or does not fit the cache."""


class MissingExtraError(UserError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, beside: str = "") -> None:
        """``beside``: what has to be named in the command since no extra brings it."""
        more = f" {beside}" if beside else ""
        super().__init__(f"This needs the package '{package}': run  pip install 'grip-edge[{extra}]'{more}")


class BundleError(GripEdgeError):
    """The bundle is missing, incomplete, damaged, foreign or newer than this version."""

    exit_code = 2


class ParityError(GripEdgeError):
    """An exported graph does not agree with its reference."""
