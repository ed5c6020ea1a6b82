"""Source of whole slides: lists each slide once, by the level that its tiles are cut from, and reads it in pieces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from imaging.dicom.attributes import text
from imaging.errors import DataFault
from imaging.formats.peek import HeaderPeek, peek_headers
from imaging.formats.series import DROP_SLICE
from imaging.formats.series_source import PREFIX, SeriesSource
from imaging.formats.slide_grid import SAME_RESOLUTION, LevelSize, TileGrid, choose_level
from imaging.formats.slide_level import check_flavor, level_size, tiff_level_sizes
from imaging.preprocess.spec import PreprocessSpec
from imaging.sandbox.pool import Pool
from imaging.sources.protocol import Payload, Source, SourceFile

FORMATS: Mapping[str, str] = {"dicom": "slide", "picture": "tiff-slide"}
"""Format of a file -> that of the slide in it; others are handed on as they are."""
WHOLE = "1/1"
AMBIGUOUS = "0/0"
"""The piece of a level that is refused beside another of its resolution."""


@dataclass(frozen=True, slots=True)
class SlideFile:
    """A file that is a level of a slide, or a whole one."""

    file: SourceFile
    size: LevelSize


class SlideSource(SeriesSource):
    """The slides of another source. A series in DICOM is one slide, and so is a TIFF pyramid.

    Of the levels of a series the coarsest that is as fine as asked for is listed; where there is none that can be used,
    all are, so that each is refused with its own reason, as are labels and overviews. `members` has the pieces.
    """

    def __init__(
        self,
        source: Source,
        workers: Pool,
        spec: PreprocessSpec,
        members: Mapping[str, tuple[SourceFile, ...]] = MappingProxyType({}),
    ) -> None:
        super().__init__(source, workers, DROP_SLICE, members)
        self.spec = spec

    def pieces(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Return a listed slide as often as it has pieces, each with one of them."""
        return [replace(file, piece=one.piece) for file in files for one in self.members[file.name]]

    def fetch(self, file: SourceFile) -> Payload:
        """Return the file with the level of a piece, and what of it is asked for."""
        (piece,) = (one for one in self.members[file.name] if one.piece == file.piece)
        if piece.piece == AMBIGUOUS:
            raise DataFault("unsupported", SAME_RESOLUTION)
        payload = self.source.fetch(piece)
        if payload.format not in FORMATS:
            return payload
        asked = {
            "mpp": self.spec.slide_mpp,
            "size_px": self.spec.size_px,
            "tissue": self.spec.slide_tissue,
            "piece": piece.piece,
        }
        return replace(
            payload,
            format=FORMATS[payload.format],
            metadata=(*payload.metadata, *((name, str(value)) for name, value in asked.items())),
        )

    def _grouped(self) -> dict[str, tuple[SourceFile, ...]]:
        slides: dict[str, dict[tuple[str, int, LevelSize], SlideFile]] = {}
        alone: list[SourceFile] = []
        with self.workers as workers:
            for file, peek in peek_headers(self.source, self.source.scan(), workers.map):
                sizes = _sizes(peek)
                if sizes:
                    name = f"{PREFIX}{peek.series_uid}" if peek.series_uid else file.name
                    by_object = slides.setdefault(name, {})
                    uid = text(peek.attributes, "SOPInstanceUID") or file.name
                    for number, size in enumerate(sizes):
                        # Of copies of an object the first is the level.
                        by_object.setdefault((uid, number, size), SlideFile(file, size))
                else:
                    alone.append(file)
        members = dict[str, tuple[SourceFile, ...]]()
        for name, by_object in slides.items():
            levels = list(by_object.values())
            try:
                chosen = choose_level([level.size for level in levels], self.spec.slide_mpp or 0)
            except DataFault as fault:
                piece = AMBIGUOUS if fault.reason == "unsupported" else WHOLE
                members |= {one.file.name: (replace(one.file, piece=piece),) for one in levels}
            else:
                members[name] = self._pieces(levels[chosen])
        return members | {file.name: (replace(file, piece=WHOLE),) for file in alone}

    def _pieces(self, level: SlideFile) -> tuple[SourceFile, ...]:
        grid = TileGrid(level=level.size, size_px=self.spec.size_px, mpp=self.spec.slide_mpp or 0)
        count = grid.pieces
        return tuple(replace(level.file, piece=f"{number}/{count}") for number in range(1, count + 1))


def _sizes(peek: HeaderPeek) -> list[LevelSize]:
    """Return the sizes of the levels that a header is of: one in DICOM, none where it is of none that can be used."""
    try:
        if peek.reason:
            return []
        if peek.format == "dicom":
            check_flavor(peek.attributes)
            return [level_size(peek.attributes)]
        return tiff_level_sizes(peek.attributes)
    except DataFault:
        return []
