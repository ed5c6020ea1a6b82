"""Owns the series of a source as if each were one file: what a volume is made of."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from blake3 import blake3

from imaging.formats.headers import headers
from imaging.preprocess.spec import PreprocessSpec
from imaging.sandbox.pool import Pool
from imaging.sources.protocol import Payload, Source, SourceFile

PREFIX = "series "


class SeriesSource:
    """The series of another source; what belongs to none stays a file of its own.

    `workers` look at the headers, `bad_slice` is the policy of `imaging.formats.series`.
    """

    def __init__(
        self,
        source: Source,
        workers: Pool,
        bad_slice: str,
        members: Mapping[str, tuple[SourceFile, ...]] = MappingProxyType({}),
    ) -> None:
        self.source = source
        self.workers = workers
        self.bad_slice = bad_slice
        self.members = dict(members)

    @property
    def kind(self) -> str:
        """The kind of the source underneath."""
        return self.source.kind

    def default_spec(self) -> PreprocessSpec:
        """Return that of the source underneath."""
        return self.source.default_spec()

    def scan(self) -> Iterator[SourceFile]:
        """List the series, in the order in which they appear: each as large as its files, and as new as the newest."""
        self.members.clear()
        self.members.update(self._grouped())
        for name, files in self.members.items():
            yield SourceFile(
                name=name,
                # A server that tells no sizes still tells how many there are.
                size_bytes=sum(file.size_bytes for file in files) or len(files),
                mtime_ns=max(file.mtime_ns for file in files),
                tag=series_tag(files),
            )

    def fetch(self, file: SourceFile) -> Payload:
        """Hand over all files of a series."""
        files = self.members[file.name]
        if not file.name.startswith(PREFIX):
            return self.source.fetch(files[0])
        contents = tuple(content for one in files for content in self.source.fetch(one).contents)
        return Payload(
            format="series", name=file.name, contents=contents, metadata=(("bad-slice", self.bad_slice),)
        )

    def _grouped(self) -> dict[str, tuple[SourceFile, ...]]:
        alone, groups = [], dict[str, list[SourceFile]]()
        with self.workers as workers:
            for file, seen in headers(self.source, self.source.scan(), workers.map):
                if seen.series_uid:
                    groups.setdefault(f"{PREFIX}{seen.series_uid}", []).append(file)
                else:
                    alone.append(file)
        # In the order in which they appear: a compressed archive is read forwards.
        found = {name: tuple(members) for name, members in groups.items()}
        return found | {file.name: (file,) for file in alone}


def series_tag(files: Sequence[SourceFile]) -> str:
    """Return what changes with any of the files' tags, "" where they have none."""
    tags = [file.tag for file in files]
    return blake3("\n".join(tags).encode()).hexdigest() if any(tags) else ""
