"""Arrow without pandas: the first list that becomes an array does not load it."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(name=fullname)


def look_without_pandas() -> None:
    """Let Arrow, where it is loaded, look for pandas once while there seems to be none.

    At its first list it imports pandas to ask whether the list is a Series, which takes 0.4 s of every command; nothing
    here makes one. Whoever asks Arrow for pandas by name, such as `Table.to_pandas`, gets it still.
    """
    arrow = sys.modules.get("pyarrow")
    if arrow is None or "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        arrow.array([])
    finally:
        sys.meta_path.remove(finder)
