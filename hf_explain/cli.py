"""`hf-explain <command> ...`: everything one does from a terminal."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from .jobs.flags import add_flags
from .modeling.errors import ExplainerError, nearest, unknown_name

# Name: the module with FLAGS and run(arguments) -> exit code, and what the command does.
# Modules are imported when their command is called.
COMMANDS = {
    "demo": ("hf_explain.demo.command", "everything once, on embedded pictures, with no network"),
    "train": ("hf_explain.training.command", "train an explainer of a classifier on pictures without labels"),
    "evaluate": ("hf_explain.evaluating.command", "measure explainers and methods side by side on a data set"),
    "explain": ("hf_explain.explaining.command", "explain a picture, or a whole data set as a new one"),
    "publish": ("hf_explain.publishing.command", "push an explainer with its card, and a Space of it"),
    "app": ("hf_explain.app.command", "serve a page on which a person asks a classifier why"),
    "counting": ("hf_explain.demo.counting_command", "the faithfulness task of Vision DiffMask"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs a command; 0 if it went well, 2 for what the user can mend, 1 for what the world refused."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="hf-explain",
        description="Which pixels made my classifier say that?",
        epilog="hf-explain <command> --help says what a command takes.",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="<command>", title="commands")
    chosen = next((word for word in argv if not word.startswith("-")), None)
    if chosen is not None and chosen not in COMMANDS:
        parser.error(unknown_name("command", chosen, COMMANDS))
    for name, (module, help_) in COMMANDS.items():
        command = commands.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
        if name == chosen:
            found = importlib.import_module(module)
            add_flags(command, found.FLAGS)
            command.usage = usage(command)
            command.set_defaults(run=found.run)
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        refuse(commands.choices[chosen] if chosen else parser, unknown)
    if arguments.version:
        from .version import __version__

        print(__version__)
        return 0
    if arguments.command is None:
        parser.print_help()
        return 0
    return call(arguments)


def refuse(parser: argparse.ArgumentParser, unknown: list[str]) -> None:
    flags = [flag for action in parser._actions for flag in action.option_strings]
    near = nearest(unknown[0].partition("=")[0], flags)
    ask = f"; did you mean {near}?" if near else f"; {parser.prog} --help lists what it takes"
    parser.error(f"unrecognized arguments: {' '.join(unknown)}{ask}")


def usage(command: argparse.ArgumentParser) -> str:
    """What cannot be left out; all flags would be a page before every refusal."""
    taken = [action for action in command._actions if not action.option_strings or action.required]
    words = [f"{a.option_strings[0]} {a.dest.upper()}" if a.option_strings else f"[{a.dest} ...]" for a in taken]
    return " ".join([command.prog, *words, "[--flag VALUE ...]"])


def call(arguments: argparse.Namespace) -> int:
    """Runs the command; an error of the kind a user can do something about is one line, without a traceback."""
    from .jobs.progress import only_lines

    if not sys.stderr.isatty():
        only_lines()
    if os.environ.get("HF_EXPLAIN_TRACEBACK"):
        return arguments.run(arguments)
    try:
        return arguments.run(arguments)
    except ExplainerError as error:
        return say(error, 2)
    except (OSError, ImportError) as error:
        return say(error, 1)
    except KeyboardInterrupt:
        print("hf-explain: interrupted", file=sys.stderr)
        return 130


def say(error: Exception, code: int) -> int:
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"hf-explain: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
