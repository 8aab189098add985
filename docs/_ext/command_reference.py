"""The directives `command-list` and `commands`: every command and option, from the App itself."""

import re
from collections.abc import Iterator
from inspect import getfile
from types import NoneType
from typing import get_args, get_origin

from cyclopts import App
from cyclopts.argument import Argument
from definitions import Definition, definition_list
from docstrings import described, introduction, summary
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from resnetkit.cli.app import app

__all__ = ["commands", "options", "setup", "usage"]

QUOTED_COMMAND = re.compile(r"'(resnet [^']+|hf [^']+)'")
OPTION = re.compile(r"(?<![\w`-])(--[a-z][a-z-]*)(?![\w`-])")


def commands(app: App, name: str = "resnet") -> Iterator[tuple[str, App]]:
    """Yields the commands below an App that do something or group others, by full name."""
    flags = {*app.help_flags, *app.version_flags}
    for word in sorted(set(app) - flags):
        full_name = f"{name} {word}"
        yield full_name, app[word]
        yield from commands(app[word], full_name)


def options(command: App) -> list[Argument]:
    """Returns the arguments and options of a command, in the order of its help."""
    if command.default_command is None:
        return []
    return [argument for argument in command.assemble_argument_collection() if argument.show]


def usage(name: str, command: App) -> str:
    """Returns the line of a command: what is required, then that there are options."""
    arguments = options(command)
    if not arguments:
        return f"{name} COMMAND"
    words = [name]
    for argument in arguments:
        word = argument_word(argument)
        if argument.index is not None:
            words.append(word if argument.required else f"[{word}]")
        elif argument.required:
            words.append(f"{argument.names[0]} {word}")
    return " ".join([*words, "[OPTIONS]"])


def argument_word(argument: Argument) -> str:
    """Returns the word that stands for the value of an argument: its name, choices or type."""
    if argument.is_flag():
        return ""
    if argument.index is not None:
        word = argument.names[0].removeprefix("--").upper()
        return f"{word}..." if argument.is_var_positional() else word
    if choices := argument.get_choices():
        return "|".join(choices)
    types = [kind for kind in get_args(argument.hint) if kind not in (NoneType, Ellipsis)]
    word = (types or [argument.hint])[0].__name__.upper()
    return f"{word}..." if get_origin(argument.hint) is tuple else word


def term(argument: Argument) -> str:
    """Returns an argument as a user types it."""
    word = argument_word(argument)
    return word if argument.index is not None else f"{argument.names[0]} {word}".strip()


def help_of(argument: Argument, command: App) -> str:
    """Returns the help of an argument, which its type or the docstring of the command gives."""
    documented = described(command.default_command.__doc__, "Args")
    text = argument.parameter.help or documented[argument.field_info.name]
    return in_markdown(text if text.endswith(".") else f"{text}.")


def in_markdown(text: str) -> str:
    """Returns a help text with its commands and options as code."""
    return OPTION.sub(r"`\1`", QUOTED_COMMAND.sub(r"`\1`", text))


class CommandList(SphinxDirective):
    """A table of the commands: what each does, in a sentence."""

    def run(self) -> list[nodes.Node]:
        lines = ["| command | what it does |", "|---|---|"]
        for name, command in commands(app):
            if name.count(" ") == 1:  # not one of a group
                link = f"[`{name}`](#{name.replace(' ', '-')})"
                lines.append(f"| {link} | {in_markdown(summary(command.help))} |")
        table = self.parse_text_to_nodes("\n".join(lines))
        return [nodes.container("", *table, classes=["command-list"])]


class Commands(SphinxDirective):
    """A section for each command, with its options."""

    def run(self) -> list[nodes.Node]:
        text = "\n\n".join(command_in_markdown(name, command) for name, command in commands(app))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def command_in_markdown(name: str, command: App) -> str:
    """Returns the section of a command: what it does, how it is called, and an example."""
    parts = [
        f"#{'#' * name.count(' ')} {name}",
        in_markdown(introduction(command.help)),
        f"```text\n{usage(name, command)}\n```",
    ]
    if epilogue := command.help_epilogue:
        parts.append(f"For example:\n\n```console\n$ {epilogue.removeprefix('Example: ')}\n```")
    if options(command):
        parts.append(f"```{{command-options}} {name}\n```")
    return "\n\n".join(parts)


class CommandOptions(SphinxDirective):
    """The arguments and options of the command that the argument names."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        [name] = self.arguments
        command = dict(commands(app))[name]
        self.env.note_dependency(getfile(command.default_command))
        definitions = [self.definition(name, command, option) for option in options(command)]
        return [definition_list(self, definitions)]

    def definition(self, name: str, command: App, option: Argument) -> Definition:
        """Returns the definition of an option, which a search finds as well."""
        spelling = option.names[0]
        program = name.replace(" ", "-")
        anchor = f"{program}-{spelling}".lower()
        domain = self.env.domains.standard_domain
        domain.add_program_option(program, spelling, self.env.docname, anchor)
        remarks = ["required"] if option.required else []
        return Definition(term(option), remarks, help_of(option, command), anchor)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directives."""
    app.add_directive("command-list", CommandList)
    app.add_directive("commands", Commands)
    app.add_directive("command-options", CommandOptions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
