"""What BudgetSelect promises to the engines that hold it.

An engine that was built with one version of the interface does not run with another. So any change of what follows
bumps ``VERSION``, here and in ``native/budget_select_plugin.cpp``; tests/plugin remembers the two together.

    scores [B,N], features [B,N,D], budget int64 [1] (shape input)  ->  kept [B,K,D], indices int64 [B,K]

Indices ascend; ties go to the lower index; NaN counts as -infinity, and -0 as 0. No attributes, no state.
"""

from __future__ import annotations

NAMESPACE = "grip"
NAME = "BudgetSelect"
VERSION = "1"

INPUTS = ("scores", "features", "budget")
OUTPUTS = ("kept", "indices")
SHAPE_INPUTS = (2,)
FLOAT_TYPES = ("FLOAT", "HALF", "BF16")
INDEX_TYPE = "INT64"

MAX_TOKENS = 16_384
