"""The directive `exit-codes`: what a command returns to the shell, from the exceptions."""

from docstrings import summary
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from resnetkit import errors
from resnetkit.cli.study import CLAIM_NOT_CONFIRMED
from resnetkit.errors import Interrupted, ResnetkitError

__all__ = ["exceptions", "setup"]


def exceptions() -> list[type[ResnetkitError]]:
    """Returns the public exceptions, the base class first."""
    public = [getattr(errors, name) for name in errors.__all__]
    classes = [each for each in public if isinstance(each, type)]
    return sorted(classes, key=lambda each: (len(each.__mro__), each.__name__))


class ExitCodes(SphinxDirective):
    """A table of exit codes, and of the exceptions that end a command with each."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(errors.__file__)
        rows = [
            ("0", "", "Success."),
            *(exception_row(each) for each in exceptions()),
            (str(CLAIM_NOT_CONFIRMED), "", "A study with a claim that was not confirmed."),
        ]
        lines = ["| exit code | exception | meaning |", "|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in sorted(rows, key=lambda row: int(row[0][:3]))]
        return self.parse_text_to_nodes("\n".join(lines))


def exception_row(exception: type[ResnetkitError]) -> tuple[str, str, str]:
    """Returns the cells of an exception: exit code, name and meaning, in Markdown."""
    code = "130 or 143" if exception is Interrupted else str(exception.exit_code)
    return code, f"{{py:exc}}`~resnetkit.errors.{exception.__name__}`", summary(exception.__doc__)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directive."""
    app.add_directive("exit-codes", ExitCodes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
