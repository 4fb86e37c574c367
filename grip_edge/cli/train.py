"""``grip-edge train``: a checkpoint and questions about images become a scorer."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from grip_edge.cli.extras import needs_extra
from grip_edge.cli.main import INTERRUPTED_EXIT_CODE

if TYPE_CHECKING:
    from grip_edge.calibration.scorer_files import ScorerCard
    from grip_edge.calibration.training.run import TrainRequest

# What the extra ``train`` brings.
_EXTRA_PACKAGES = ("accelerate", "safetensors", "torch", "transformers")

# The settings that --warmup-steps and --policy-steps stand for.
_STAGES = {
    "grip": {"supervised": "grip.warmup.loop.steps", "reinforcement": "grip.grpo.loop.steps"},
    "tprl": {"supervised": "tprl.demonstrations.loop.steps", "reinforcement": "tprl.ppo.loop.steps"},
}


@click.command()
@click.option("--model", required=True, help="A name from 'grip-edge models', a folder, or a Hugging Face hub id.")
@click.option(
    "--data", required=True, help="'scenes', a .jsonl file, or a folder with train.jsonl and validation.jsonl."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write the scorer to.")
@click.option("--method", default=None, help="grip (default) or tprl.")
@click.option("--work", type=click.Path(path_type=Path), help="Checkpoints, logs and cache; default: OUT.work.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings as JSON or TOML; options here win over it.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="One setting, as in grip.grpo.group=8.")
@click.option("--warmup-steps", type=int, help="Steps of the supervised stage (warm-up, demonstrations); 0: none.")
@click.option("--policy-steps", type=int, help="Steps of the reinforcement stage (GRPO, PPO); 0: none.")
@click.option("--seed", type=int, help="Decides weights, batches and draws; default 0.")
@click.option("--precision", help="Of the frozen model: bf16 (default), fp16 or fp32. Scorers are fp32.")
@click.option("--resume", is_flag=True, help="Continue the run in --work where it stopped.")
@click.option("--force", is_flag=True, help="Replace a scorer that is already there, and start over.")
@click.option("--cpu", is_flag=True, help="Leave accelerators alone.")
@click.option("--show-settings", is_flag=True, help="Print all settings as JSON, a file for --config, and stop.")
def train(
    model: str,
    data: str,
    out: Path,
    method: str | None,
    work: Path | None,
    config: Path | None,
    assignments: tuple[str, ...],
    warmup_steps: int | None,
    policy_steps: int | None,
    seed: int | None,
    precision: str | None,
    resume: bool,
    force: bool,
    cpu: bool,
    show_settings: bool,
) -> None:
    """Train a scorer that chooses visual tokens for your model, on your questions.

    \b
    Examples:
      grip-edge train --model llava-tiny --data scenes --method grip --out my-scorer
      grip-edge train --model llava-hf/llava-1.5-7b-hf --data questions.jsonl --method tprl --out my-scorer
    Several devices:
      accelerate launch -m grip_edge.cli.main train ...
    """
    with needs_extra("train", _EXTRA_PACKAGES):
        from grip_edge.calibration.training.run import TrainRequest
        from grip_edge.calibration.training.settings import parse_assignment, read_settings
    chosen: list[tuple[str, Any]] = [parse_assignment(text) for text in assignments]
    named = {"method": method, "seed": seed, "precision": precision}
    chosen += [(key, value) for key, value in named.items() if value is not None]
    stages = _STAGES[read_settings(config, chosen).method]
    steps = {"supervised": warmup_steps, "reinforcement": policy_steps}
    chosen += [(stages[stage], number) for stage, number in steps.items() if number is not None]
    settings = read_settings(config, chosen)
    if show_settings:
        click.echo(json.dumps(dataclasses.asdict(settings), indent=2))
        return
    _run(TrainRequest(model, data, out, settings, work, resume, force, cpu))


def _run(request: TrainRequest) -> None:
    with needs_extra("train", _EXTRA_PACKAGES):
        from grip_edge.calibration.training.run import run_training
    try:
        card = run_training(request, lambda doing: click.echo(doing, err=True))
    except KeyboardInterrupt:
        click.echo(f"grip-edge: interrupted; continue with:  {_resuming(click.get_current_context())}", err=True)
        click.get_current_context().exit(INTERRUPTED_EXIT_CODE)
    if card is not None:
        _print_summary(request, card)


def _resuming(context: click.Context) -> str:
    """The command line that was given, with --resume and without --force."""
    words = ["grip-edge", "train"]
    for option in context.command.params:
        value, name = context.params[option.name or ""], option.opts[0]
        if context.get_parameter_source(option.name or "") is not ParameterSource.COMMANDLINE:
            continue
        if isinstance(value, bool):
            words += [name] if name not in ("--force", "--resume") else []
        else:
            for item in value if isinstance(value, tuple) else (value,):
                words += [name, str(item)]
    return shlex.join([*words, "--resume"])


def _print_summary(request: TrainRequest, card: ScorerCard) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = card.training["accuracy"]
    click.echo(f"{request.out}: {card.method} for {request.model}")
    if rows:
        table = Table("policy", "budget", "accuracy", title=f"{rows[0]['questions']} validation questions")
        for row in rows:
            table.add_row(row["policy"], row["budget"], f"{100 * row['accuracy']:.1f} %")
        Console().print(table)
    click.echo("Next:")
    click.echo(f"  grip-edge export --model {request.model} --scorer {request.out} --budget-range 0.1,0.5")
