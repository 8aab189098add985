"""The page as HTML, in the language of the reader."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from resnetkit.data.images.formats import DECODED_FORMATS, IMAGE_SUFFIXES
from resnetkit.report.language import ENGLISH, Language, find_language, languages
from resnetkit.untrusted import markup_text

__all__ = ["PageFacts", "preferred_language", "render_page"]

LANGUAGE_NAMES = {"en": "English", "ko": "한국어"}
LONGEST_HEADER = 1000  # characters of Accept-Language


@dataclass(frozen=True)
class PageFacts:
    """What the page tells about the server.

    Attributes:
        model: name of the model.
        engine: that computes it.
        precision: of the computation.
        classes: number of classes.
        image_size: height and width of what the network sees, in pixels.
        sha256: digest of the network.
        saliency: methods that the server has for saliency maps; empty without any.
        needs_token: whether requests must carry a token.
        body_bytes: the largest photo that the server accepts.
    """

    model: str
    engine: str
    precision: str
    classes: int
    image_size: tuple[int, int]
    sha256: str
    saliency: tuple[str, ...]
    needs_token: bool
    body_bytes: int


def render_page(facts: PageFacts, t: Language = ENGLISH) -> str:
    """Returns the page in a language."""
    template = environment().get_template("page.html.j2")
    text = template.render(
        _=t,
        ngettext=t.plural,
        plural=plural_forms(t),
        language=t.code,
        languages={code: LANGUAGE_NAMES.get(code, code) for code in languages()},
        facts=facts,
        formats=", ".join(DECODED_FORMATS).replace("WEBP", "WebP"),
        suffixes=sorted(IMAGE_SUFFIXES),
    )
    return markup_text(text)


def plural_forms(t: Language) -> Callable[[str, str], list[str]]:
    """Returns the function that gives a script both forms of a sentence: for one, and for more."""
    return lambda one, many: [t.catalog.ngettext(one, many, count) for count in (1, 2)]


@cache
def environment() -> Environment:
    """Returns the environment of the template."""
    return Environment(
        loader=PackageLoader("resnetkit.serving.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def preferred_language(chosen: str | None, accepted: str) -> Language:
    """Returns the language to answer in.

    Args:
        chosen: code of the language that the address names; None if it names none.
        accepted: the header Accept-Language, such as "ko-KR,ko;q=0.9,en;q=0.8".
    """
    known = languages()
    if chosen in known:
        return find_language(chosen)
    ranked = sorted(map(weighted, accepted[:LONGEST_HEADER].split(",")), key=lambda item: -item[1])
    codes = [code for code, weight in ranked if weight > 0 and code in known]
    return find_language(codes[0]) if codes else ENGLISH


def weighted(part: str) -> tuple[str, float]:
    """Returns the language and the weight of a part of Accept-Language, as `ko-KR;q=0.9`."""
    tag, _, parameter = part.partition(";")
    try:
        weight = float(parameter.strip().removeprefix("q=") or 1)
    except ValueError:
        weight = 0.0
    return tag.strip().partition("-")[0].lower(), weight
