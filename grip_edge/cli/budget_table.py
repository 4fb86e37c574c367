"""What ``grip-edge calibrate`` recommends, for people: the verdict in words, and the table that it rests on."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from grip_edge.budget_record import BudgetEvidence, RecommendedBudget
from grip_edge.bundle import Bundle


def print_recommendation(bundle: Bundle, found: RecommendedBudget) -> None:
    tokens = bundle.manifest.model.vision.visual_tokens
    table = Table(title=f"{found.questions} questions about {found.images} images, {found.data}", title_style="bold")
    for column in ("kept tokens", "as unpruned", f"at least ({found.confidence:g})", "right", "TTFT p50 ms", "p90 ms"):
        table.add_column(column, justify="right")
    for one in found.evidence:
        cells = (
            f"{one.kept_tokens} of {tokens}",
            f"{one.agreement:.1%}",
            f"{one.agreement_low:.1%}",
            f"{one.accuracy:.1%}",
            f"{one.ttft_p50_ms:.1f}",
            f"{one.ttft_p90_ms:.1f}",
        )
        table.add_row(*cells, style="bold" if one.kept_tokens == found.kept_tokens else None)
    console = Console(highlight=False)
    console.print(table)
    chosen = _chosen(found)
    if len(chosen.slices) > 1:
        console.print(_by_group(chosen, found.confidence))
    click.echo(verdict(found, tokens))
    click.echo(f"Next:\n  grip-edge infer IMAGE QUESTION --bundle {bundle.folder} --budget auto")


def _by_group(chosen: BudgetEvidence, confidence: float) -> Table:
    table = Table(title=f"With {chosen.kept_tokens} tokens, by group of questions", title_style="bold")
    for column in ("group", "questions", "as unpruned", f"at least ({confidence:g} each)", "right"):
        table.add_column(column, justify="left" if column == "group" else "right")
    for name, one in chosen.slices.items():
        row = (f"{one.agreement:.1%}", f"{one.agreement_low:.1%}", f"{one.accuracy:.1%}")
        table.add_row(name, str(one.questions), *row)
    return table


def verdict(found: RecommendedBudget, visual_tokens: int) -> str:
    """One sentence."""
    chosen = _chosen(found)
    wishes = []
    if "min_agreement" in found.promise:
        wishes.append(f"the unpruned answer in {found.promise['min_agreement']:.1%} of the questions")
    if "target_ttft_ms" in found.promise:
        wishes.append(f"TTFT of {found.promise['target_ttft_ms']:g} ms or less")
    sure = f"at least {chosen.agreement_low:.1%} with confidence {found.confidence:g}; {found.method}"
    return (
        f"For {' and '.join(wishes)}, keep {found.kept_tokens} of {visual_tokens} visual tokens: "
        f"{chosen.agreement:.1%} as unpruned ({sure}), {chosen.accuracy:.1%} right, "
        f"TTFT {chosen.ttft_p90_ms:.1f} ms at the 90th percentile on {found.processor}."
    )


def _chosen(found: RecommendedBudget) -> BudgetEvidence:
    return next(one for one in found.evidence if one.kept_tokens == found.kept_tokens)
