"""Owns the list of private elements that are known to be safe, PS3.15 table E.3.10-1."""


def is_safe(creator: str, tag: int) -> bool:
    """Return whether a private element may stay; the block (the third byte of the tag) does not matter."""
    raise NotImplementedError
