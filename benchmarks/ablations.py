"""What each part of GRIP's training is worth: one training run per variant, all measured on the same questions.

    python benchmarks/ablations.py --out ablations

A variant differs from the default in one setting; all of them draw equally often, whatever number of updates they make
of a draw. Trainings that are finished are not repeated, so a run that was interrupted goes on; the table is that of
grip-edge evaluate,  in OUT/report.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from grip_edge.calibration.training.settings import parse_assignment, read_settings

VARIANTS: dict[str, tuple[str, ...]] = {
    "both": (),
    "warmup-only": ("grip.grpo.loop.steps=0",),
    "grpo-only": ("grip.warmup.loop.steps=0",),
    "no-question": ("grip.scorer.sees_question=false",),
    "no-budget": ("grip.scorer.sees_budget=false",),
    "no-dither": ("grip.scorer.dither=0",),
    "group-4": ("grip.grpo.group=4",),
    "group-24": ("grip.grpo.group=24",),
    "reward-probability": ("grip.grpo.reward=probability",),
    "reward-margin": ("grip.grpo.reward=logit_margin",),
    "reward-exact": ("grip.grpo.reward=exact_match",),
    "one-update": ("grip.grpo.updates_per_draw=1",),
    "no-floor": ("grip.grpo.spread_floor=0",),
    "curriculum-3": ("grip.grpo.curriculum=3",),
}


def grip_edge(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "grip_edge.cli.main", *arguments], check=True)


def train(model: str, variant: str, out: Path, seed: int, draws: int) -> None:
    folder = out / variant
    if folder.exists():
        return
    updates = read_settings(None, [parse_assignment(part) for part in VARIANTS[variant]]).grip.grpo.updates_per_draw
    # The variant's own settings win over what they follow.
    length = (f"grip.grpo.loop.steps={draws * updates}", f"grip.grpo.loop.warmup_steps={draws * updates * 3 // 100}")
    settings = [part for setting in (*length, *VARIANTS[variant]) for part in ("--set", setting)]
    resume = ["--resume"] if folder.with_name(f"{variant}.work").exists() else []
    grip_edge(
        "train", "--model", model, "--data", "scenes", "--method", "grip", "--out", str(folder),
        "--seed", str(seed), *settings, *resume,
    )  # fmt: skip


@click.command()
@click.option("--model", default="llava-tiny", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Scorers, and the report.")
@click.option("--variants", default=",".join(VARIANTS), show_default=True, help="Comma-separated.")
@click.option("--budgets", default="0.05,0.1,0.25", show_default=True)
@click.option("--images", default=1000, show_default=True, help="Test scenes, 5 questions each.")
@click.option("--draws", default=1000, show_default=True, help="Batches of groups in GRPO.")
@click.option("--seed", default=0, show_default=True)
def main(model: str, out: Path, variants: str, budgets: str, images: int, draws: int, seed: int) -> None:
    """Train every variant, then measure all of them."""
    chosen = variants.split(",")
    unknown = [variant for variant in chosen if variant not in VARIANTS]
    if unknown:
        raise click.BadParameter(f"there is no variant '{unknown[0]}'; expected some of {', '.join(VARIANTS)}")
    for variant in chosen:
        train(model, variant, out, seed, draws)
    policies = [part for variant in chosen for part in ("--policies", f"{variant}={out / variant}")]
    grip_edge(
        "evaluate", "--model", model, *policies, "--budgets", budgets, "--images", str(images),
        "--against", chosen[0], "--no-plots", "--out", str(out / "report"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
