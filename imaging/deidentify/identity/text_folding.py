"""Folded text, the form in which spellings are compared: small letters and digits alone, without accents."""

import re
import unicodedata
from itertools import product
from math import prod

PLAIN = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ŋ": "n"}
)
"""Letters that Unicode does not decompose."""
WRITTEN = {
    **dict.fromkeys(("ä", "ae", "æ"), ("ä", "ae", "a")),
    **dict.fromkeys(("ö", "oe", "ø", "œ"), ("ö", "ø", "oe", "o")),
    **dict.fromkeys(("ü", "ue"), ("ü", "ue", "u")),
    **dict.fromkeys(("å", "aa"), ("å", "aa", "a")),
    **dict.fromkeys(("ß",), ("ß", "ss")),
}
"""How else people and machines write a letter that ASCII lacks, or the two letters that stand for it."""
SPELLED = re.compile(f"({'|'.join(WRITTEN)})")
MOST = 64
"""Of a name with more spellings than these, only the first four such letters are spelt in each way."""


LAST_ALPHABET = "\u2e7f"
"""Behind it come the signs of East Asia, each a syllable or a word."""


class _Folds(dict[int, str | None]):
    """Table for `str.translate`, filled at the first use of a character; None for characters that are left out."""

    def __missing__(self, code: int) -> str | None:
        apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", chr(code)).casefold())
        self[code] = folded = "".join(one for one in apart.translate(PLAIN) if one.isalnum()) or None
        return folded


_FOLDS = _Folds()


def fold(text: str) -> str:
    """Return the letters and digits of a text, small and without accents.

    >>> fold("Müller-Lüdenscheidt, J. (*1964)")
    'mullerludenscheidtj1964'
    """
    return text.translate(_FOLDS)


def folded_positions(text: str) -> list[int]:
    """Return where in the text each character of its folded form stood.

    >>> folded_positions("Weiß, J")
    [0, 1, 2, 3, 3, 6]
    """
    return [at for at, character in enumerate(text) for _ in _FOLDS[ord(character)] or ""]


def accent_variants(text: str) -> set[str]:
    """Return a text as it is, without accents, and in small letters with each umlaut written in each way.

    >>> sorted(accent_variants("MUELLER"))
    ['MUELLER', 'mueller', 'muller', 'müller']
    """
    parts = SPELLED.split(unicodedata.normalize("NFC", text).lower())
    written = [WRITTEN.get(part, (part,)) for part in parts]
    if len(written) == 1:
        return {text, unaccented(text)}
    if prod(map(len, written)) > MOST:
        written = [options[:1] if at > 8 else options for at, options in enumerate(written)]
    spelled = {"".join(choice) for choice in product(*written)}
    return {text, unaccented(text)} | spelled | {unaccented(one) for one in spelled}


def is_distinctive(folded: str) -> bool:
    """Tell whether a word is long enough to identify somebody: three letters, or two of a script without an alphabet.

    >>> is_distinctive("li"), is_distinctive("lee"), is_distinctive("山田")
    (False, True, True)
    """
    return len(folded) >= 3 or (len(folded) == 2 and max(folded) > LAST_ALPHABET)


def unaccented(text: str) -> str:
    """Return a text without accents; a letter that only looks like one with an accent stays."""
    if text.isascii():
        return text
    apart = unicodedata.normalize("NFKD", text)
    return unicodedata.normalize("NFC", "".join(one for one in apart if not unicodedata.combining(one)))
