"""Run a command, or list them: `python -m fer_voting [COMMAND ...]`, installed as `fer-voting`."""

import argparse
import runpy
import sys

from fer_voting import __version__

COMMANDS = {
    "train": "train a network, or with -m a sweep of networks",
    "sweep": "show the state of a sweep (status), its results (table), or run what is unfinished (retry)",
    "search": "search for good values of a training's keys",
    "evaluate": "evaluate a trained network on a data set",
    "predict": "find the faces in photos, videos or a camera's frames, and recognise their expressions",
    "export": "write a trained network as an ONNX file, a folder to share, or a page for the browser",
    "report": "write one HTML page about all finished runs",
    "audit": "list a data set's unusable, duplicate and mislabelled images",
    "pack": "decode a data set once, ahead of training",
}
"""One line about each command. The command is the module of that name."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command that `arguments` (default: the command line) begin with; without one, print the list.

    Raises SystemExit with code 2 if there is no such command.
    """
    words = sys.argv[1:] if arguments is None else arguments
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="fer-voting",
        usage="fer-voting COMMAND ...  (or: python -m fer_voting COMMAND ...)",
        description="Voting residual network for facial expressions in small images.",
        epilog="commands:\n"
        + "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
        + "\n\nfer-voting COMMAND --help describes one of them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fer_voting {__version__}")
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    # Everything after the command's name is for the command.
    name = parser.parse_args(words[:1]).command
    if name is None:
        parser.print_help()
        return
    # The same as `python -m fer_voting.COMMAND`, which Lightning repeats for each further rank of a training.
    sys.argv[1:] = words[1:]
    runpy.run_module(f"fer_voting.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
