"""JavaScript modules inside one page: bundled without a tool, allowed by its hash.

A module is wrapped into a function that returns its exports, so that modules share no names.
"""

import base64
import hashlib
import re
from importlib.resources import files

__all__ = ["bundle", "policy", "source"]

IMPORT = re.compile(r'^import \{([\w,\s]+)\} from "\./(\w+)\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?function\*?|const|class) (\w+)", re.MULTILINE)


def source(name: str) -> str:
    """Returns the text of a file of this package."""
    return files("resnetkit.report.play").joinpath(name).read_text(encoding="utf-8")


def bundle(entry: str) -> str:
    """Returns a script of a module and all that it imports, without imports and exports.

    Args:
        entry: name of the module, without its ending.

    Raises:
        ValueError: when modules import each other in a circle, or in a form other than `import {
            name, other } from "./module.js";` at the top.
    """
    scripts: dict[str, str] = {}
    add_module(entry, scripts, ())
    return '"use strict";\n' + "\n".join(scripts.values())


def add_module(name: str, scripts: dict[str, str], importers: tuple[str, ...]) -> None:
    """Adds a module to scripts, after the modules that it imports."""
    if name in importers:
        raise ValueError(f"the modules {', '.join((*importers, name))} import each other")
    if name in scripts:
        return
    text = source(f"{name}.js")
    for _, imported in IMPORT.findall(text):
        add_module(imported, scripts, (*importers, name))
    scripts[name] = wrapped(name, text)


def wrapped(name: str, text: str) -> str:
    """Returns a module as the constant `module_<name>` that holds its exports."""
    exports = ", ".join(match[2] for match in EXPORT.finditer(text))
    body = IMPORT.sub(r"const {\1} = module_\2;\n", text)
    body = EXPORT.sub(r"\1 \2", body)
    if left := re.search(r"^(import|export)\b.*", body, re.MULTILINE):
        raise ValueError(f"{name}.js: '{left[0]}' is not a form that can be bundled")
    return f"const module_{name} = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();"


def policy(scripts: list[str]) -> str:
    """Returns a Content-Security-Policy that allows these scripts, and no request.

    Workers are started from scripts inside the page.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(digest, scripts))}",
            "style-src 'unsafe-inline'",
            "worker-src blob:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def digest(text: str) -> str:
    """Returns the source expression of an inline script."""
    sha256 = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(sha256).decode()}'"
