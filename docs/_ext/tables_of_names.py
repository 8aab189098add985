"""The directives `architectures` and `studies`: tables of what the package names."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from resnetkit.cli.models import listed
from resnetkit.models import zoo
from resnetkit.studies import table

__all__ = ["setup"]


class Architectures(SphinxDirective):
    """The named architectures, traced when the page is built."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(zoo.__file__)
        lines = [
            "| name | layers | parameters | multiply-adds | paper's error |",
            "|---|--:|--:|--:|--:|",
        ]
        for name in zoo.ARCHITECTURES:
            row = listed(name)
            error = f"{row.paper_error:.2f} %" if row.paper_error is not None else ""
            lines.append(
                f"| `{name}` | {row.layers} | {row.parameters:,} | {row.multiply_adds / 1e6:,.0f} M"
                f" | {error} |"
            )
        return self.parse_text_to_nodes("\n".join(lines))


class Studies(SphinxDirective):
    """The studies, with the question that each answers and its scales."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(table.__file__)
        lines = ["| study | question | scales | source |", "|---|---|---|---|"]
        for study in table.STUDIES.values():
            scales = ", ".join(f"`{scale}`" for scale in study.scales)
            lines.append(f"| `{study.name}` | {study.question} | {scales} | {study.source} |")
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directives."""
    app.add_directive("architectures", Architectures)
    app.add_directive("studies", Studies)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
