"""Owns the cleaning of free text by value: whatever names somebody in the same object is taken out of it."""

from collections.abc import Iterable

from imaging.deidentify.identifiers import Identifier


class TextCleaner:
    """Finds any spelling of any of some identifiers in text, whatever the case and the accents."""

    def __init__(self, identifiers: Iterable[Identifier]) -> None:
        raise NotImplementedError

    def clean(self, text: str) -> str:
        """Return the text without them."""
        raise NotImplementedError

    def found_in(self, text: str) -> bool:
        """Tell whether there is one."""
        raise NotImplementedError
