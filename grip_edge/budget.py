"""The visual-token budget: how many of the N visual tokens the language model gets to see.

Written by people as a ratio (a number with a decimal point, in (0, 1]) or as a token count (an integer); everywhere
behind the command line it is a token count. A ratio r of N tokens keeps floor(r * N + 0.5) tokens, at least one.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from grip_edge.errors import BudgetError

_INTEGER = re.compile(r"[+-]?\d+")
_FORM = "a ratio in (0, 1] such as 0.25, or a token count such as 144"


@dataclass(frozen=True)
class Budget:
    """A request, not yet applied to a model: exactly one of ``ratio`` and ``tokens`` is set."""

    ratio: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.tokens is None):
            raise BudgetError(f"A budget is either a ratio or a token count, not both or none; expected {_FORM}.")
        if self.ratio is not None and not 0.0 < self.ratio <= 1.0:  # also refuses NaN
            raise BudgetError(f"Budget {self.ratio} is not in (0, 1]; expected {_FORM}.")
        if self.tokens is not None and self.tokens < 1:
            raise BudgetError(f"Budget {self.tokens} keeps no token; expected {_FORM}.")

    @classmethod
    def of(cls, value: Budget | float | int | str) -> Budget:
        """From what a caller wrote: text, a float (ratio) or an int (token count)."""
        if isinstance(value, Budget):
            return value
        if isinstance(value, str):
            return cls._parse(value.strip())
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BudgetError(f"A budget cannot be {value!r}; expected {_FORM}.")
        return cls(tokens=value) if isinstance(value, int) else cls(ratio=value)

    @classmethod
    def _parse(cls, text: str) -> Budget:
        if _INTEGER.fullmatch(text):
            return cls(tokens=int(text))
        try:
            return cls(ratio=float(text))
        except ValueError:
            raise BudgetError(f"Budget '{text}' is not a number; expected {_FORM}.") from None

    def kept_tokens(self, visual_tokens: int) -> int:
        """How many of ``visual_tokens`` this keeps."""
        if self.tokens is None:
            return max(1, math.floor((self.ratio or 0.0) * visual_tokens + 0.5))
        if self.tokens > visual_tokens:
            raise BudgetError(
                f"Budget {self.tokens} is more than the {visual_tokens} visual tokens of this image; "
                f"expected at most {visual_tokens}, or a ratio such as 0.25."
            )
        return self.tokens

    def __str__(self) -> str:
        return str(self.ratio if self.tokens is None else self.tokens)


@dataclass(frozen=True)
class BudgetRange:
    """The budgets that a bundle was made and checked for, in tokens. Keeping all tokens is always allowed too.

    Where the number of visual tokens depends on the image, ``visual_tokens`` is the largest number.
    """

    min_tokens: int
    max_tokens: int
    visual_tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.min_tokens <= self.max_tokens <= self.visual_tokens:
            raise BudgetError(
                f"A budget range satisfies 1 <= min <= max <= {self.visual_tokens} tokens; "
                f"got {self.min_tokens} to {self.max_tokens}."
            )

    @classmethod
    def parse(cls, text: str, visual_tokens: int) -> BudgetRange:
        """From ``"0.1,0.5"`` (ratios or token counts, smaller first)."""
        parts = text.split(",")
        if len(parts) != 2:
            raise BudgetError(f"A budget range is two budgets, as in 0.1,0.5; got '{text}'.")
        low, high = (Budget.of(part).kept_tokens(visual_tokens) for part in parts)
        if low > high:
            raise BudgetError(f"A budget range starts with the smaller budget; got '{text}'.")
        return cls(low, high, visual_tokens)

    def for_image(self, visual_tokens: int) -> BudgetRange:
        """The same share of an image of fewer tokens. Both ends give way by what rounding can make of a ratio."""
        if visual_tokens == self.visual_tokens:
            return self
        low, high = (count * visual_tokens / self.visual_tokens for count in (self.min_tokens, self.max_tokens))
        return BudgetRange(max(1, math.ceil(low - 1)), min(visual_tokens, math.floor(high + 1)), visual_tokens)

    def resolve(self, budget: Budget | float | int | str) -> int:
        """Tokens to keep for this request; an error outside the range names the range."""
        kept = Budget.of(budget).kept_tokens(self.visual_tokens)
        if kept == self.visual_tokens or self.min_tokens <= kept <= self.max_tokens:
            return kept
        raise BudgetError(
            f"Budget {Budget.of(budget)} keeps {kept} of {self.visual_tokens} visual tokens; this bundle serves "
            f"{self} and 1.0. Choose a budget inside, or export again with a wider --budget-range."
        )

    def __str__(self) -> str:
        low, high = self.min_tokens / self.visual_tokens, self.max_tokens / self.visual_tokens
        return f"{low:.3g} to {high:.3g} ({self.min_tokens} to {self.max_tokens} tokens)"
