"""Preview of masks beside the headers of a source: what they would be joined with, before anything is taken in."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from imaging.annotations.label_join import KEY_OF_LEVEL
from imaging.annotations.label_preview import KEYWORDS
from imaging.annotations.masks.mask import MaskClasses
from imaging.annotations.masks.mask_table import MaskLine, MaskTable, join_masks
from imaging.annotations.masks.peek_mask import MaskPeek
from imaging.dicom.attributes import Attributes, text
from imaging.errors import DataFault
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Item
from imaging.sandbox.worker_process import Answer

BATCH_FILES = 16
SHOWN_FROM = 2
"""A name that the masks of one patient alone have may be the patient's: it is counted and not shown."""

OnProgress = Callable[[int, int], object]
Run = Callable[[Iterable[Item]], Iterator[Answer | DataFault]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPreview:
    """What masks would be joined with, in counts of files of the source, of lines of the table and of files of masks.

    `kinds`, `classes`, `refused` (by reason) and `others` (segments and regions of other names that masks of several
    patients have) count files of masks. `of_other_size` are files of the source with other rows or columns.
    """

    level: str
    files: int
    patients: int
    files_without_mask: int
    files_in_conflict: int
    of_other_size: int
    lines_without_image: int
    lines_in_conflict: int
    lines_without_file: int
    kinds: Mapping[str, int]
    classes: Mapping[str, int]
    refused: Mapping[str, int]
    others: Mapping[str, int]
    others_of_one_patient: int


@dataclass(slots=True)
class MaskMatcher:
    """Matcher of masks with the files of a source; identifiers become pseudonyms."""

    table: MaskTable
    classes: MaskClasses
    pseudonyms: Pseudonyms
    keys: list[str] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    persons: list[str] = field(default_factory=list)
    """As `patients`, but that variants of one PatientID are one: names are shown that several persons have."""
    sizes: list[tuple[int, ...]] = field(default_factory=list)

    def add(self, name: str, header: Attributes, patient: str) -> None:
        """Note a file with pixels by its name, its header, which is empty of pictures and NIfTI, and its patient."""
        level = self.table.level
        self.keys.append(
            self.pseudonyms.key(level, name if level == "file" else text(header, KEYWORDS[level]))
        )
        self.patients.append(self.pseudonyms.key("patient", patient))
        self.persons.append(replace(self.pseudonyms, patient_variants="join").key("patient", patient))
        size = (header.get("Rows"), header.get("Columns"))
        self.sizes.append(tuple(int(one[0]) for one in size if isinstance(one, tuple) and len(one) == 1))

    def result(self, run: Run, on_progress: OnProgress = lambda *_: None) -> MaskPreview:
        """Return what the noted files would be joined with; `run` calls `peek_masks` for each file of masks."""
        keys = pa.table({KEY_OF_LEVEL[self.table.level]: pa.array(self.keys, pa.string())})
        joined = join_masks(self.table, keys)
        of_files = {line.file: line for lines in joined.masks for line in lines}
        peeks = dict[str, MaskPeek]()
        for name, peek in self._peeks(of_files, run):
            peeks[name] = peek
            on_progress(len(peeks), len(of_files))
        good = [peek for peek in peeks.values() if not peek.reason]
        patients_of = defaultdict[str, set[str]](set)
        for lines, person in zip(joined.masks, self.persons, strict=True):
            for line in lines:
                for name in peeks[line.file].others:
                    patients_of[name].add(person)
        shown = {name for name, patients in patients_of.items() if len(patients) >= SHOWN_FROM}
        faults = Counter(joined.faults)
        return MaskPreview(
            level=self.table.level,
            files=faults[""],
            patients=len({one for one, fault in zip(self.patients, joined.faults, strict=True) if not fault}),
            files_without_mask=faults["no-mask"] + faults["no-mask-file"],
            files_in_conflict=faults["two-masks"],
            of_other_size=sum(
                any(_differ(size, peeks[line.file].sizes) for line in lines)
                for size, lines in zip(self.sizes, joined.masks, strict=True)
            ),
            lines_without_image=len(joined.report.lines_without_image),
            lines_in_conflict=len(joined.report.lines_in_conflict),
            lines_without_file=len(joined.report.lines_without_file),
            kinds=_counted(peek.kind for peek in good),
            classes={
                name: sum(number in peek.classes for peek in good)
                for number, name in enumerate(self.classes.names, 1)
            },
            refused=_counted(peek.reason for peek in peeks.values() if peek.reason),
            others=_counted(name for peek in good for name in peek.others if name in shown),
            others_of_one_patient=len(patients_of) - len(shown),
        )

    def _peeks(self, lines: Mapping[str, MaskLine], run: Run) -> Iterator[tuple[str, MaskPeek]]:
        files = list(lines)
        batches = [files[start : start + BATCH_FILES] for start in range(0, len(files), BATCH_FILES)]
        for batch, outcome in zip(batches, run(self._item(batch, lines) for batch in batches), strict=True):
            if isinstance(outcome, DataFault) and len(batch) > 1:
                # One of them ended its worker: each is given again alone.
                for name in batch:
                    yield from self._peeks({name: lines[name]}, run)
            elif isinstance(outcome, DataFault):
                yield batch[0], MaskPeek(reason=outcome.reason)
            else:
                yield from zip(batch, (MaskPeek(**one) for one in outcome.value), strict=True)

    def _item(self, names: Sequence[str], lines: Mapping[str, MaskLine]) -> Item:
        paths = tuple(self.table.folder / name for name in names)
        return Item({"formats": [lines[name].format for name in names]}, paths)


def _differ(image: Sequence[int], mask: Sequence[int]) -> bool:
    """Return whether a mask cannot be of an image of these rows and columns; what is not known does not differ.

    The axes of NIfTI are in any order.
    """
    if len(image) < 2 or len(mask) < 2:
        return False
    return bool(Counter(image) - Counter(mask)) if len(mask) == 3 else tuple(image) != tuple(mask)


def _counted(names: Iterable[Any]) -> dict[str, int]:
    return dict(Counter(names).most_common())
