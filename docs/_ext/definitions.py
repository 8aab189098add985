"""Lists of terms for generated pages: each term has an anchor, remarks beside it, and a text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

__all__ = ["Definition", "definition_list"]


@dataclass(frozen=True)
class Definition:
    """A term and what is said about it.

    Attributes:
        term: shown as code.
        remarks: Markdown, beside the term.
        text: Markdown, below it.
        anchor: for links.
    """

    term: str
    remarks: Sequence[str]
    text: str
    anchor: str


def definition_list(
    directive: SphinxDirective, definitions: Iterable[Definition]
) -> nodes.definition_list:
    """Returns a list of definitions, and makes their anchors known to links.

    Args:
        directive: parses the Markdown.
        definitions: in the order of the list.
    """
    result = nodes.definition_list(classes=["simple", "terms"])
    labels = directive.env.domains.standard_domain.anonlabels
    for definition in definitions:
        labels[definition.anchor] = (directive.env.docname, definition.anchor)
        term = nodes.term("", "", nodes.literal(text=definition.term), ids=[definition.anchor])
        item = nodes.definition_list_item("", term)
        directive.set_source_info(term)
        directive.set_source_info(item)
        item += [classifier(directive, remark) for remark in definition.remarks]
        item += nodes.definition("", *directive.parse_text_to_nodes(definition.text))
        result += item
    return result


def classifier(directive: SphinxDirective, remark: str) -> nodes.classifier:
    """Returns a remark beside a term."""
    inline, messages = directive.parse_inline(remark)
    return nodes.classifier("", "", *inline, *messages)
