"""``grip-edge plan``: memory, disk and time of a model on a device, before anything is downloaded or compiled."""

from __future__ import annotations

import click

from grip_edge.cli.int4_options import int4_options
from grip_edge.errors import UserError
from grip_edge.export.precision import (
    CACHE_PRECISIONS,
    EMBEDDING_PRECISIONS,
    PRECISIONS,
    PrecisionOptions,
    session_config,
)
from grip_edge.export.targets.table import find_target, target_names
from grip_edge.planning.devices import CPU, DEVICES

_DEFAULT_RANGE = "0.1,0.5"
_TABLE_COLUMNS = 160


@click.command()
@click.option("--model", required=True, help="A name from 'grip-edge models', a folder, or an id on the hub.")
@click.option(
    "--device",
    "devices",
    multiple=True,
    default=(CPU,),
    show_default=True,
    help=f"May be given several times; 'cpu' (this machine, measured) or: {', '.join(DEVICES)}.",
)
@click.option("--precision", default=PRECISIONS[0], show_default=True, help=f"One of: {', '.join(PRECISIONS)}.")
@click.option("--lm-head-precision", help="The same for the LM head; default of quantised models: int8-weight.")
@click.option(
    "--embedding-precision",
    help=f"For the token embeddings, one of: {', '.join(EMBEDDING_PRECISIONS)}; default of quantised models: int8.",
)
@int4_options
@click.option(
    "--cache-precision",
    help=f"For keys and values on 'cpu', one of: {', '.join(CACHE_PRECISIONS)}; default of int4: fp16.",
)
@click.option("--budget-range", metavar="LOW,HIGH", help=f"As for export; default unless --budgets: {_DEFAULT_RANGE}.")
@click.option("--budgets", metavar="B,B,...", help="Budgets to forecast, as ratios or token counts; 1.0 always is.")
@click.option("--prompt-tokens", default=45, show_default=True, help="Tokens of text around the image.")
@click.option("--new-tokens", default=64, show_default=True, help="Tokens of the answer.")
@click.option("--threads", type=click.IntRange(min=1), help="For 'cpu'; default: all cores.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of tables.")
def plan(
    model: str,
    devices: tuple[str, ...],
    precision: str,
    lm_head_precision: str | None,
    embedding_precision: str | None,
    int4_block: int | None,
    int4_symmetric: bool | None,
    cache_precision: str | None,
    budget_range: str | None,
    budgets: str | None,
    prompt_tokens: int,
    new_tokens: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Forecast a bundle's size, the export's needs, memory, and time per budget; say what fits.

    \b
    Example:
      grip-edge plan --model llava-1.5-7b --precision int4
      grip-edge plan --model llava-1.5-7b --precision int4 --device jetson-orin-nano-8gb --device rtx-4060-8gb
    """
    from grip_edge.planning.forecast import Workload
    from grip_edge.planning.plan import PlanRequest, Precision, make_plan

    if cache_precision is not None and CPU not in devices:
        raise UserError("--cache-precision is about the device 'cpu'; GPUs keep keys and values in fp16; leave it out.")
    options = PrecisionOptions(
        precision, lm_head_precision, embedding_precision, int4_block, int4_symmetric, cache_precision
    )
    request = PlanRequest(
        model=model,
        precision=Precision(precision, options.formats, session_config(options.formats)),
        devices=tuple(dict.fromkeys(devices)),
        budget_range=budget_range or (None if budgets else _DEFAULT_RANGE),
        budgets=tuple(budgets.split(",")) if budgets else (),
        work=Workload(prompt_tokens, new_tokens),
        others={name: PrecisionOptions(name).formats for name in PRECISIONS},
        target_precisions={name: find_target(name).precisions for name in target_names()},
        threads=threads,
    )
    made = make_plan(request)
    if as_json:
        click.echo(made.to_json(), nl=False)
        return
    from rich.console import Console

    from grip_edge.planning.tables import plan_tables

    console = Console(highlight=False, width=None if Console().is_terminal else _TABLE_COLUMNS)
    for part in plan_tables(made):
        console.print(part)
