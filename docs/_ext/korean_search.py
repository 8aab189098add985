"""The search in Korean, which Sphinx lacks: nouns are found with and without their particles.

A word is listed with each of its beginnings, so that a search for 잔차 finds 잔차를, and one for 층
finds 층마다. Particles at the end of a word are removed from the list and from what is searched,
so that 잔차는 finds 잔차를. Python fills the list and JavaScript searches it, by the same rules.
"""

import json
import re

from sphinx.application import Sphinx
from sphinx.search import SearchLanguage

__all__ = ["SearchKorean", "setup"]

PARTICLES = (  # longer ones first
    *("에서는", "에서도", "으로는", "으로도", "이라는", "입니다"),
    *("에서", "에게", "에는", "에도", "으로", "로서", "로써", "로는", "까지", "부터"),
    *("마다", "처럼", "보다", "만큼", "이나", "이란", "이며", "이고", "이다", "라는"),
    *("은", "는", "이", "가", "을", "를", "의", "에", "와", "과", "도", "로", "만", "나", "란"),
)
SHORTEST = 2  # syllables that remain of a word

KOREAN = "[\uac00-\ud7a3]+"
OTHER = r"[^\W\uac00-\ud7a3]+"


class SearchKorean(SearchLanguage):
    """Splits Korean text into words, and words into their beginnings."""

    lang = "ko"
    language_name = "Korean"
    stopwords = frozenset(PARTICLES)
    js_splitter_code = r"""
var splitQuery = (query) =>
  query.match(/[\uac00-\ud7a3]+|(?:(?![\uac00-\ud7a3])[\p{Letter}\p{Number}_])+/gu) || [];
"""
    js_stemmer_code = """
var Stemmer = function () {
  const particles = PARTICLES;
  const shortest = SHORTEST;
  this.stemWord = (word) => {
    const removable = (particle) =>
      word.endsWith(particle) && word.length - particle.length >= shortest;
    for (;;) {
      const particle = particles.find(removable);
      if (!particle) return word;
      word = word.slice(0, -particle.length);
    }
  };
};
""".replace("PARTICLES", json.dumps(PARTICLES)).replace("SHORTEST", str(SHORTEST))

    def split(self, input: str) -> list[str]:  # noqa: A002  # the name of the base class
        words: list[str] = []
        for word in re.findall(f"{KOREAN}|{OTHER}", input):
            korean = re.fullmatch(KOREAN, word)
            words += [word[:end] for end in range(1, len(word) + 1)] if korean else [word]
        return words

    def stem(self, word: str) -> str:
        """Returns a word without the particles at its end, in small letters."""
        while True:
            endings = (p for p in PARTICLES if word.endswith(p) and len(word) - len(p) >= SHORTEST)
            particle = next(endings, None)
            if particle is None:
                return word.lower()
            word = word.removesuffix(particle)


# Sphinx's Korean lacks this sentence, and its script fails on what is empty.
TRANSLATIONS = {
    "locale": "ko",
    "messages": {
        "Search finished, found one page matching the search query.": [
            "검색어가 있는 페이지를 ${resultCount}개 찾았습니다."
        ]
    },
    "plural_expr": "0",
}


def add_translations(app: Sphinx) -> None:
    """Adds to Korean pages what their search says."""
    if app.config.language == "ko" and app.builder.format == "html":
        body = f"Documentation.addTranslations({json.dumps(TRANSLATIONS)});"
        app.add_js_file(None, body=body, priority=800)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the language."""
    app.add_search_language(SearchKorean)
    app.connect("builder-inited", add_translations)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
