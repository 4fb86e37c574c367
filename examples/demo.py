"""Ask the embedded model about a picture at several budgets, and show which patches it kept.

    python examples/demo.py grip-bundle examples/scene.png kept-patches.png

The questions and their true answers stand beside the picture (scene.json). Exit code 1 if an unpruned answer is wrong.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from grip_edge.runtime import Pipeline
from grip_edge.runtime.kept_image import draw_kept, save_kept

BUDGETS = (0.1, 0.25, 0.5, 1.0)
SHOWN_BUDGET = 0.1


def main(bundle: str, image: Path, kept_image: Path) -> int:
    asked = json.loads(image.with_suffix(".json").read_text(encoding="utf-8"))
    pipeline = Pipeline.load(bundle)
    table = Table("question", "truth", *(f"at {budget}" for budget in BUDGETS), title=f"{image}: answers by budget")
    wrong = 0
    for question, truth in asked.items():
        answers = [pipeline.generate(image, question, budget).answer for budget in BUDGETS]
        wrong += answers[-1] != truth
        marks = (answer if answer == truth else f"[red]{answer}[/]" for answer in answers)
        table.add_row(question, truth, *marks)
    console = Console()
    console.print(table)

    question = next(iter(asked))
    result = pipeline.generate(image, question, SHOWN_BUDGET)
    kept = f"{result.budget.kept_tokens} of {result.budget.visual_tokens} visual tokens kept"
    caption = f"{question}  {result.answer}\n{kept}"
    save_kept(kept_image, draw_kept(image, pipeline.manifest, result.kept_indices, caption))
    console.print(f"What the model saw of the first question at budget {SHOWN_BUDGET}: {kept_image}")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: python {sys.argv[0]} BUNDLE IMAGE KEPT.png")
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
