"""Source of series: groups the files of another source by series, so that each series is listed as one file."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from blake3 import blake3

from imaging.formats.peek import peek_headers
from imaging.preprocess.spec import PreprocessSpec
from imaging.sandbox.pool import Pool
from imaging.sources.protocol import Payload, Source, SourceFile

PREFIX = "series "


class SeriesSource:
    """The series of another source; a file without a series stays a file of its own.

    `workers` peek at the headers, `bad_slice` is the policy of `imaging.formats.series`.
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
        """The kind of the other source."""
        return self.source.kind

    def default_spec(self) -> PreprocessSpec:
        """Return the specification of the other source."""
        return self.source.default_spec()

    def scan(self) -> Iterator[SourceFile]:
        """List the series in the order in which they appear: each as large as its files, and as new as the newest."""
        self.members.clear()
        self.members.update(self._grouped())
        for name, members in self.members.items():
            # Pieces are of one file.
            files = members[:1] if members[0].piece else members
            yield SourceFile(
                name=name,
                # A server that gives no sizes still gives the number of files.
                size_bytes=sum(file.size_bytes for file in files) or len(files),
                mtime_ns=max(file.mtime_ns for file in files),
                tag=series_tag(files),
            )

    def fetch(self, file: SourceFile) -> Payload:
        """Return the contents of all files of a series."""
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
            for file, peek in peek_headers(self.source, self.source.scan(), workers.map):
                if peek.series_uid:
                    groups.setdefault(f"{PREFIX}{peek.series_uid}", []).append(file)
                else:
                    alone.append(file)
        # In the order in which they appear: a compressed archive is read forwards.
        series = {name: tuple(members) for name, members in groups.items()}
        return series | {file.name: (file,) for file in alone}


def series_tag(files: Sequence[SourceFile]) -> str:
    """Return a digest of the tags of files, empty where they have none."""
    tags = [file.tag for file in files]
    return blake3("\n".join(tags).encode()).hexdigest() if any(tags) else ""
