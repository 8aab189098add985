"""Sphinx: `python -m sphinx -n -W docs site` builds the documentation without a network."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "docs/_ext")]

metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = metadata["name"]
author = "The resnetkit authors"
version = release = metadata["version"]

extensions = [
    "myst_parser",
    "sphinx_copybutton",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "accessible",
    "api_reference",
    "command_reference",
    "error_reference",
    "korean_search",
    "recipe_reference",
    "tables_of_names",
]
smartquotes = False  # options begin with two hyphens
exclude_patterns = ["_*"]
nitpicky = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 80
add_module_names = False
default_role = "linked"
napoleon_use_ivar = True
nitpick_ignore_regex = [  # without a network, names of other packages have no page to link to
    (r"py:.*", r"(torch|numpy|np|pathlib|collections|contextlib|PIL|pydantic|typing)\..*"),
]

# Markdown as GitHub reads it: anchors are the slugs of headings.
myst_heading_anchors = 4
myst_disable_syntax = ["myst_line_comment"]  # a line that begins with a percent sign

# Only what follows a prompt is copied: the commands without their output.
copybutton_prompt_text = r"\$ |> "
copybutton_prompt_is_regexp = True

# Korean: a catalog for each page, and figures such as images/chart.ko.svg.
locale_dirs = ["locale"]
gettext_compact = False
gettext_location = False
figure_language_filename = "{path}{basename}.{language}{ext}"

templates_path = ["_templates"]
html_theme = "furo"
html_title = project
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/language.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
