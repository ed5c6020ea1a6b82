"""Command line: `radloop run`, `ingest`, `train`, `inspect`, `up` and the other commands that --help lists."""

import os
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from cli.commands import config, dataset, deidentify, flows, inspect, stack
from cli.dispatch import carry_out, verbosity
from cli.stop import stoppable
from imaging.errors import RadloopError, UserFault
from imaging.release_compatibility import RELEASE

FLAGS = ("-v", "--verbose", "-q", "--quiet")

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help cuts off no name of an option, and takes "[default: ...]" for no markup.
    rich_markup_mode=None,
    help="Close the loop between an image archive and a model in use.",
)


def print_version(asked: bool) -> None:
    """Print the version, and end."""
    if asked:
        print(f"radloop {RELEASE}")
        raise typer.Exit


@app.callback()
def common(
    home: Annotated[
        Path | None, typer.Option(help="Folder of the embedded default. [default: .radloop]")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the logs of all libraries too.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and the result alone.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Choose the home for this command, and how much it prints."""
    if verbose and quiet:
        raise UserFault("-v prints more and -q less: give one of them")
    verbosity.verbose, verbosity.quiet = verbose, quiet
    if home is not None:
        os.environ["RADLOOP_HOME"] = str(home)


for group in (flows, inspect, stack, deidentify, dataset, config):
    group.register(app)


@app.command()
def demo() -> None:
    """Build a made-up hospital, and let two nights pass over it."""
    carry_out("demo:two_nights", below="demo")


def common_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of the command line with the options of every command before the command.

    >>> common_first(["train", "-q", "--name", "chest", "--home", "/data"])
    ['-q', '--home', '/data', 'train', '--name', 'chest']
    """
    common, others, left = list[str](), list[str](), iter(arguments)
    for argument in left:
        if argument in FLAGS or argument.startswith("--home="):
            common.append(argument)
        elif argument == "--home":
            common += [argument, *islice(left, 1)]
        else:
            others.append(argument)
    return common + others


def main() -> None:
    """Run the command line; what a person can mend ends with exit code 2 and without a stack trace."""
    try:
        with stoppable():
            app(args=common_first(sys.argv[1:]))
    except RadloopError as error:
        # Loaded here: it loads rich, which --help does not need.
        from cli.terminal import print_error

        print_error(str(error))
        sys.exit(2)


if __name__ == "__main__":
    main()
