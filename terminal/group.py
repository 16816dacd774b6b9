"""The group of commands, how a command is made of a call of the API, and options that several share."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..exporter.core.bounds import THREADS, WORKERS
from ..exporter.core.errors import NotFasterError
from ..exporter.core.targets import RUNTIMES
from .call import Call
from .complete import complete_device, complete_recipe, complete_setting
from .progress import open_listener
from .screens.console import console_for, print_json

EPILOG = (
    "Exit status: 0 done, 1 parity or a requirement failed, 2 not faster than dense, 3 bad input or something missing "
    "here."
)


def command(example: str) -> Callable[[Callable[..., Call]], click.Command]:
    """Make a command of a function that says which call of the API it stands for.

    Every command has --json, --quiet and --print-python, and prints its result even where that is a failure.

    Args:
        example: of a command line.
    """

    def decorate(function: Callable[..., Call]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, quiet: bool, print_python: bool, **options: Any) -> None:
            call = function(**options)
            if print_python:
                click.echo(call.python())
                return
            slower = None
            with open_listener(as_json or quiet) as listener:
                try:
                    result = call.run(listener)
                except NotFasterError as error:
                    if error.result is None:
                        raise
                    slower, result = error, error.result
            if as_json:
                print_json(call.plain(result))
                click.get_current_context().ensure_object(dict)["result"] = True
            elif not quiet:
                call.draw(result, console_for(sys.stdout))
            if slower is not None:
                raise slower
            call.judge(result)

        for option in (
            click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else."),
            click.option("--quiet", is_flag=True, help="Print nothing but errors."),
            click.option("--print-python", is_flag=True, help="Print the API call that this stands for, and stop."),
        ):
            run = option(run)
        return cli.command(epilog=f"Example: {example}")(run)

    return decorate


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="vitrim")
def cli() -> None:
    """Prune a Vision Transformer, export it with static shapes, and prove it right.

    Start with: vitrim export quickstart -o out/
    """


settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_setting,
    help="Override a recipe's key, such as --set export.batch=8.",
)
recipe_argument = click.argument("recipe", shell_complete=complete_recipe)
device_option = click.option(
    "--device",
    shell_complete=complete_device,
    help="Change the recipe for a device that ships (jetson-orin, desktop-gpu, cpu) or a YAML file; --set wins.",
)
bundle_argument = click.argument("bundle", type=click.Path(path_type=Path))
threads_option = click.option(
    "--threads", type=click.IntRange(*THREADS), help="Threads of the CPU; all cores by default."
)
runtime_option = click.option(
    "--runtime",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *RUNTIMES]),
    help="What runs the graphs: auto takes the engine where there is one, else the target's own runtime.",
)
size_option = click.option(
    "--size", metavar="HxW", help="Images of this size, such as 192x256, of a bundle of several; its own by default."
)
track_option = click.option(
    "--track",
    "tracker",
    type=click.Choice(["mlflow", "wandb"]),
    help="Keep the run in MLflow or Weights & Biases; their own environment variables say where.",
)
force_option = click.option(
    "--force", is_flag=True, help="Replace whatever plain file is there, but nothing that is read."
)


workers_option = click.option(
    "--workers",
    type=click.IntRange(*WORKERS),
    help="Processes; with --ray actors, all that fit by default.  [default: 1]",
)
ray_option = click.option(
    "--ray",
    is_flag=False,
    flag_value="auto",
    metavar="[ADDRESS]",
    help="Work on a cluster of Ray: HOST:PORT, auto ($RAY_ADDRESS, or the one here), or local to start one.",
)


def out_option(text: str) -> Callable[[Callable[..., Call]], Callable[..., Call]]:
    """-o, which must be given."""
    return click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help=text)
