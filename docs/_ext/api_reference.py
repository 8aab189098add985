"""References to Python names: short names in docstrings, and names that have no entry of their own.

A word between single backticks in a docstring is a link if there is something to link to, and code
otherwise. A type of an annotation that exists but is not documented stays without a link.
"""

from importlib import import_module

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.roles import XRefRole
from sphinx.util.nodes import make_refnode

__all__ = ["exists", "setup"]


class LinkedRole(XRefRole):
    """Refers to a Python name, and is code where there is none."""

    def process_link(
        self,
        env: BuildEnvironment,
        refnode: nodes.Element,
        has_explicit_title: bool,
        title: str,
        target: str,
    ) -> tuple[str, str]:
        refnode.update_all_atts({"refdomain": "py", "reftype": "obj", "is_optional": True})
        return title, target.removesuffix("()")


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Returns a link for the end of a name, or its words alone where no link is needed."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    if link := link_to(app, env, node, content):
        return link
    return content if node.get("is_optional") or exists(target) else None


def link_to(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Returns a link to the one documented name that ends as the target does, if there is one."""
    ends = f".{node['reftarget']}"
    objects = env.domains.python_domain.objects
    found = {entry[:2] for name, entry in objects.items() if name.endswith(ends)}
    if len(found) != 1:
        return None
    [(docname, anchor)] = found
    return make_refnode(app.builder, node["refdoc"], docname, anchor, content)


def exists(name: str) -> bool:
    """Returns whether a dotted name of resnetkit can be imported."""
    module, _, attribute = name.rpartition(".")
    if not module.startswith("resnetkit"):
        return False
    try:
        return hasattr(import_module(module), attribute)
    except ImportError:
        return False


def replace_hyphens(app: Sphinx, document: nodes.document, name: str) -> None:
    """Writes a dash between a parameter and its description, where Sphinx has two hyphens."""
    for text in list(document.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the role, and the resolution of names."""
    app.add_role("linked", LinkedRole(innernodeclass=nodes.literal))
    app.connect("missing-reference", resolve)
    app.connect("doctree-resolved", replace_hyphens)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
