"""Answers of a bundle through ONNX Runtime, to the questions that the PyTorch model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grip_edge.bundle import Bundle, open_bundle
from grip_edge.calibration.data import AskedImages
from grip_edge.calibration.evaluation.cases import FULL_BUDGET, Case, pruning_budgets
from grip_edge.errors import UserError
from grip_edge.runtime import Pipeline


def open_bundles(folders: dict[str, Path], budgets: Sequence[str], visual_tokens: int | None) -> dict[str, Bundle]:
    """All of them serve the budgets, and cut an image into equally many tokens: ``visual_tokens``, if that is given."""
    opened = {name: open_bundle(folder) for name, folder in folders.items()}
    for bundle in opened.values():
        if bundle.manifest.image.tiling is not None:
            raise UserError(
                f"'{bundle.folder}' cuts images into tiles, so each has its own number of visual tokens; evaluation "
                "compares budgets of one number (LLaVA-1.5)."
            )
        count = bundle.manifest.model.vision.visual_tokens
        visual_tokens = visual_tokens or count
        if count != visual_tokens:
            raise UserError(
                f"'{bundle.folder}' cuts an image into {count} visual tokens, the model beside it into "
                f"{visual_tokens}; expected a bundle of the same model."
            )
        for budget in budgets:
            bundle.manifest.budget_range.resolve(budget)
    return opened


def bundle_label(name: str) -> str:
    """What the bundle called ``name`` is called beside the same policy in PyTorch."""
    return f"{name} (bundle)"


def bundle_policy(name: str) -> str:
    """The policy inside the bundle ``NAME`` or ``NAME:VARIANT``."""
    return name.partition(":")[0]


class BundleAnswerer:
    """The bundle with all tokens, and at each of ``budgets``."""

    def __init__(self, name: str, bundle: Bundle, budgets: Sequence[str], new_tokens: int) -> None:
        visual_tokens = bundle.manifest.model.vision.visual_tokens
        label = bundle_label(name)
        pruned = pruning_budgets(budgets, visual_tokens).items()
        self.cases = (Case(label, FULL_BUDGET, visual_tokens), *(Case(label, text, kept) for kept, text in pruned))
        self._pipeline = Pipeline(bundle)
        self._new_tokens = new_tokens

    def answers(self, asked: AskedImages, first_image: int) -> list[tuple[str, ...]]:
        """One row per case; the pipeline encodes each image once.

        Tokens become text as a whole, as PyTorch's do; in a stream, bytes that are no UTF-8 may come out differently.
        """
        rows: list[list[str]] = [[] for _ in self.cases]
        for question, owner in zip(asked.questions, asked.image_of, strict=True):
            for row, case in zip(rows, self.cases, strict=True):
                result = self._pipeline.generate(
                    asked.images[owner], question.text, case.kept_tokens, max_new_tokens=self._new_tokens
                )
                row.append(self._pipeline.tokenizer.decode(result.tokens, skip_special_tokens=True).strip())
        return [tuple(row) for row in rows]
