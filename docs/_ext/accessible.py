"""What Sphinx and furo write for nobody in particular, written for everybody.

axe-core finds headings without a level, landmarks without a name, code and tables that only a mouse
can scroll, headings of columns without words, parameters of a signature as a list of definitions
without terms, and a page without a title.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.locale import _

__all__ = ["accessible", "setup"]

EMPTY_HEADING = re.compile(r"<th( [^>]*)?>(?:<p></p>)?</th>")
RESULTS = re.compile(r'(?<!</h1>\n)<div id="search-results">')
PARAMETERS = re.compile(r"<dl>(\s*<dd>.*?)</dl>", re.DOTALL)  # lists of definitions have a class


def accessible(html: str) -> str:
    """Returns a page without these barriers; a page that has none stays as it is."""
    html = html.replace('role="heading">', 'role="heading" aria-level="2">')
    html = html.replace("<pre>", '<pre tabindex="0">')
    html = html.replace('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper')
    html = EMPTY_HEADING.sub(r"<td\1></td>", html)
    html = RESULTS.sub(rf"<h1>{_('Search')}</h1>\n\g<0>", html)
    for name, label in {"sidebar": _("Navigation"), "toc": _("On this page")}.items():
        html = html.replace(
            f'<aside class="{name}-drawer', f'<aside aria-label="{label}" class="{name}-drawer'
        )
    return PARAMETERS.sub(parameters, html)


def parameters(listed: re.Match[str]) -> str:
    """Returns the parameters of a signature, one a line."""
    lines = listed[1].replace("<dd>", "<div>").replace("</dd>", "</div>")
    return f'<div class="sig-parameters">{lines}</div>'


def rewrite(app: Sphinx, exception: Exception | None) -> None:
    """Rewrites the pages that were built; those that were rewritten before stay as they are."""
    if exception is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        if (better := accessible(html)) != html:
            page.write_text(better, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the rewriting of pages."""
    app.connect("build-finished", rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
