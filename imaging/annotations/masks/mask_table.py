"""Mask table of a person: which file is the mask of which image, and which classes were drawn in it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.annotations.label_join import KEY_OF_LEVEL
from imaging.annotations.masks.mask import MaskClasses
from imaging.errors import UserFault
from imaging.pseudonyms import DIGITS, NO_KEY, Level, Pseudonyms
from imaging.sources.label_file import LabelFile, open_label_file, plain_column, plain_file_name
from imaging.sources.protocol import format_of

MASK_COLUMN, DRAWN = "mask", "drawn"
LEVELS: tuple[Level, ...] = ("file", "instance", "series")
"""Identifiers by which masks are joined, the finest first: a study or a patient has many images."""
SLICE_KEYS = "slice_keys"
WHOLE: tuple[None] = (None,)
YES, NO = frozenset({"yes", "y", "true", "1"}), frozenset({"no", "n", "false", "0"})


@dataclass(frozen=True, slots=True)
class MaskLine:
    """Line of a table: the file of the mask, the classes that were drawn (None: all of the file), and its number.

    `slice` is that of the volume that the mask is of alone, None where it is of the whole image.
    """

    file: str
    drawn: tuple[int, ...] | None
    line: int
    slice: int | None = None

    @property
    def format(self) -> str:
        """The format of the file, a key of `imaging.annotations.masks.read_mask.READERS`."""
        return format_of(self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskTable:
    """Lines of a table by the pseudonyms of their images; no original identifier is kept but names of mask files.

    `keys` are the different pseudonyms; the lines of key i are `starts[i]` to `starts[i + 1]`. Files are relative to
    `folder`. `drawn` are the different sets of drawn classes, which `drawn_of` numbers.
    """

    folder: Path
    level: Level
    keys: pa.Array
    starts: NDArray[np.int64]
    files: pa.Array
    lines: NDArray[np.int64]
    drawn: tuple[tuple[int, ...] | None, ...]
    drawn_of: NDArray[np.int64]

    def at(self, number: int) -> tuple[MaskLine, ...]:
        """Return the lines of a key by its number."""
        here = range(self.starts[number], self.starts[number + 1])
        return tuple(
            MaskLine(self.files[n].as_py(), self.drawn[self.drawn_of[n]], int(self.lines[n])) for n in here
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskReport:
    """Lines of a mask table without effect, as `imaging.annotations.label_join.LabelReport` has them of labels.

    Their image does not exist, they give an image a class that another line gives it too, or their file is not there.
    """

    lines_without_image: tuple[int, ...] = ()
    lines_in_conflict: tuple[int, ...] = ()
    lines_without_file: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedMasks:
    """Lines of the mask of each example, why it has none ("" where it has), and the report.

    The reasons are "no-mask", "two-masks" and "no-mask-file". A volume has a mask where one of its slices has.
    """

    masks: tuple[tuple[MaskLine, ...], ...]
    faults: tuple[str, ...]
    report: MaskReport


def read_mask_table(path: Path, pseudonyms: Pseudonyms, classes: MaskClasses) -> MaskTable:
    """Read a table with the column `mask` and one of file, SOPInstanceUID and SeriesInstanceUID, by their names.

    A column such as `myocardium_drawn` (the name of a class, with yes or no in each line) says whether the class was
    drawn in that image; a class without a column is drawn. Raises UserFault.
    """
    if not path.is_file():
        raise UserFault(f"no mask table at {path}: give --masks the path of a CSV file with a column 'mask'")
    with open_label_file(path) as file:
        level, key_at, mask_at, columns = _columns(file, classes)
        names, lines = [], []
        for line, row in _rows(file):
            if row[mask_at].strip():
                names.append(plain_file_name(row[key_at]) if level == "file" else row[key_at].strip())
                drawn = _drawn(row, columns, classes, file.name, line)
                lines.append(MaskLine(plain_file_name(row[mask_at]), drawn, line))
    return table_of(path.parent, level, pa.array(pseudonyms.keys(level, names), pa.string()), lines)


def table_of(folder: Path, level: Level, keys: pa.Array, lines: Sequence[MaskLine]) -> MaskTable:
    """Return the table of lines, each with the key of its image."""
    # The sort is stable: lines of one key stay in their order.
    order = pc.sort_indices(keys)
    runs = pc.run_end_encode(keys.take(order))
    at = order.to_numpy()
    numbers: dict[tuple[int, ...] | None, int] = {}
    patterns = [numbers.setdefault(one.drawn, len(numbers)) for one in lines]
    return MaskTable(
        folder=folder,
        level=level,
        keys=runs.values,
        starts=np.append(0, runs.run_ends.to_numpy()).astype(np.int64),
        files=pa.array([one.file for one in lines], pa.string()).take(order),
        lines=np.array([one.line for one in lines], np.int64)[at],
        drawn=tuple(numbers),
        drawn_of=np.array(patterns, np.int64)[at],
    )


def join_masks(table: MaskTable, examples: pa.Table) -> JoinedMasks:
    """Return the masks of examples, which have the column KEY_OF_LEVEL of the table's level.

    Where a table of objects meets volumes, which have SLICE_KEYS then, the masks of their slices are put together. The
    table of one chunk may be joined alone: the report then says nothing of images of other chunks.
    """
    by_slice = table.level == "instance" and SLICE_KEYS in examples.column_names
    named = _named_slices(table, examples) if by_slice else _named_images(table, examples)
    used, conflicts, absent = {number for some in named for number in some}, set[int](), list[int]()
    of_key: dict[int, tuple[MaskLine, ...]] = {}
    for number in sorted(used):
        some = table.at(number)
        there = of_key[number] = tuple(one for one in some if (table.folder / one.file).is_file())
        absent += [one.line for one in some if one not in there]
        conflicts |= {one.line for one in there if _contradicted(one, there)}
    masks, faults = list[tuple[MaskLine, ...]](), list[str]()
    for some_keys in named:
        lines = _lines_of(some_keys, of_key)
        disputed = any(one.line in conflicts for one in lines)
        masks.append(() if disputed else lines)
        faults.append(
            "no-mask" if not some_keys else "two-masks" if disputed else "" if lines else "no-mask-file"
        )
    unused = [n for n in range(len(table.keys)) if n not in used]
    return JoinedMasks(
        masks=tuple(masks),
        faults=tuple(faults),
        report=MaskReport(
            lines_without_image=tuple(sorted(one.line for n in unused for one in table.at(n))),
            lines_in_conflict=tuple(sorted(conflicts)),
            lines_without_file=tuple(sorted(absent)),
        ),
    )


Named = Mapping[int, Sequence[int | None]]
"""Numbers of the keys by which a table names an example, and the slices that each means; None is all of it."""


def _named_images(table: MaskTable, examples: pa.Table) -> list[Named]:
    at = pc.index_in(examples[KEY_OF_LEVEL[table.level]], value_set=table.keys).to_pylist()
    # One for all images without a mask: there may be millions.
    none: Named = {}
    return [none if number is None else {number: WHOLE} for number in at]


def _named_slices(table: MaskTable, examples: pa.Table) -> list[Named]:
    number_of = {key: number for number, key in enumerate(table.keys.to_pylist())}
    named = list[Named]()
    for text in examples[SLICE_KEYS].to_pylist():
        keys = [text[start : start + DIGITS] for start in range(0, len(text), DIGITS)]
        slices: dict[int, list[int | None]] = {}
        for at, key in enumerate(keys):
            if key in number_of:
                slices.setdefault(number_of[key], []).append(at)
        # An object of several frames may be the volume by itself: then its mask is read as that of one image.
        whole = len({*keys} - {NO_KEY}) == 1
        named.append(dict.fromkeys(slices, WHOLE) if whole else slices)
    return named


def _lines_of(named: Named, of_key: Mapping[int, tuple[MaskLine, ...]]) -> tuple[MaskLine, ...]:
    return tuple(
        # A picture cannot say which of an object's frames it is of: as a mask of the whole it is refused.
        one if at is None or (len(slices) > 1 and one.format == "picture") else replace(one, slice=at)
        for number, slices in named.items()
        for at in slices
        for one in of_key[number]
    )


def _contradicted(line: MaskLine, others: Sequence[MaskLine]) -> bool:
    """Return whether another line gives the image one of the classes of this line too.

    DICOM objects name their classes themselves: whether two draw the same one shows when they are read.
    """
    for other in others:
        if other is line or (
            line.drawn is None and other.drawn is None and line.format == other.format == "dicom"
        ):
            continue
        if line.drawn is None or other.drawn is None or {*line.drawn} & {*other.drawn}:
            return True
    return False


def _columns(file: LabelFile, classes: MaskClasses) -> tuple[Level, int, int, Mapping[int, int]]:
    """Return the level, the places of identifier and mask, and the class of each column about drawn classes."""
    plain = [plain_column(name) for name in file.columns]
    level = next((one for one in LEVELS if one in file.identifiers), None)
    if level is None or plain.count(MASK_COLUMN) != 1:
        raise UserFault(
            f"{file.name} must have one column 'mask' (the file of each mask, relative to the table), and one of file, "
            "SOPInstanceUID and SeriesInstanceUID"
        )
    named = {plain_column(name) + DRAWN: number for number, name in enumerate(classes.names, 1)}
    columns = {at: named.get(name) for at, name in enumerate(plain) if name.endswith(DRAWN)}
    strange = [file.columns[at] for at, number in columns.items() if number is None]
    if strange:
        raise UserFault(
            f"the columns {strange} of {file.name} are about no class: the classes are {list(classes.names)}, a column "
            "about one is called as the class with _drawn behind it"
        )
    known = {at: number for at, number in columns.items() if number is not None}
    return level, file.identifiers[level], plain.index(MASK_COLUMN), known


def _rows(file: LabelFile) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line that is not blank; cells behind its end are empty."""
    reader = file.reader()
    for row in reader:
        if row:
            yield reader.line_num, row + [""] * (len(file.columns) - len(row))


def _drawn(
    row: Sequence[str], columns: Mapping[int, int], classes: MaskClasses, name: str, line: int
) -> tuple[int, ...] | None:
    if not columns:
        return None
    drawn = set(classes.numbers)
    for at, number in columns.items():
        answer = row[at].strip().casefold()
        if answer not in YES | NO:
            # Not quoted: in a line that is shifted it may be an identifier.
            raise UserFault(
                f"line {line} of {name} says neither yes nor no in the column of {classes.names[number - 1]!r}"
            )
        if answer in NO:
            drawn.discard(number)
    return tuple(sorted(drawn))
