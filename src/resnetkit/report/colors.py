"""The colors of reports and pages, on light and on dark."""

__all__ = ["COLORS", "color_variables"]

COLORS: dict[str, tuple[str, str]] = {
    # role: on light, on dark. The series are the hues of Okabe and Ito (color-blind safe, 2008),
    # made darker or lighter until text in them reads well (WCAG AA) on the surface.
    "page": ("#f6f7f9", "#0e1217"),
    "surface": ("#ffffff", "#171d24"),
    "ink": ("#17202a", "#e8edf2"),
    "muted": ("#53606d", "#a5b1bd"),
    "line": ("#dbe0e6", "#303a45"),
    "link": ("#0b5cad", "#82c4ff"),
    "good": ("#0a6b45", "#5fd3a2"),
    "good-soft": ("#e4f4ec", "#12291f"),
    "bad": ("#a33a00", "#ff9d66"),
    "bad-soft": ("#fdeee4", "#33200f"),
    "open": ("#6a5200", "#e6c65c"),
    "open-soft": ("#faf3d9", "#2b2510"),
    "series-1": ("#0072b2", "#56b4e9"),
    "series-2": ("#bf4d00", "#ff9248"),
    "series-3": ("#007d5b", "#2fc99b"),
    "series-4": ("#9c3f78", "#e59ac6"),
    "series-5": ("#806000", "#e3c545"),
    "series-6": ("#4b5a68", "#b3bfca"),
}


def color_variables() -> str:
    """Returns the colors of light and dark as CSS variables."""
    light, dark = (
        "".join(f"--{role}:{shades[scheme]};" for role, shades in COLORS.items())
        for scheme in (0, 1)
    )
    return f":root{{{light}}}\n@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
