"""Command `radloop inspect`: what is in a source, before anything is taken in."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from secrets import token_bytes

import yaml
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from cli.options import ask
from cli.terminal import print_result, progress_bar
from imaging.annotations.label_preview import (
    LabelMatcher,
    LabelPreview,
    open_finding_matcher,
    open_matcher,
)
from imaging.annotations.masks.mask_preview import MaskMatcher, MaskPreview
from imaging.annotations.masks.peek_mask import FUNCTION as PEEK_MASKS
from imaging.dicom.codecs import check_decoders
from imaging.dicom.findings import FINDINGS
from imaging.errors import UserFault
from imaging.formats.peek import FUNCTION, peek_headers
from imaging.private_list import write_private_list
from imaging.pseudonyms import KEY_BYTES, Pseudonyms
from imaging.quantities import quantity
from imaging.refusal_reasons import IGNORED, REASONS
from imaging.sandbox.pool import Pool
from imaging.source_overview import Overview, OverviewCounter, proposed_configuration
from imaging.sources.open_source import open_source
from imaging.sources.patients import read_patients
from imaging.sources.protocol import Source, SourceFile
from services.flow_requests import IngestRequest
from services.label_tables import finding_query, label_paths
from services.mask_input import check_masks, patient_table, read_masks_of

LINES_OF_OTHERS = "lines of a file that is of another patient, study or series than they say"
FILES_BY_SIDE = ("files with it", "without it", "unknown")
TOP = 12
"""Lines of each list that are printed; --json holds them all."""
STEP = 100
"""Files between two changes of the bar, each of which costs as much as a file."""
MEANINGS = {
    **IGNORED,
    **REASONS,
    **FINDINGS,
    "repeated-instance": "the same SOPInstanceUID comes again",
}


def inspect(
    source: str,
    labels: str | None,
    label_column: str | None,
    label_separator: str | None,
    findings: str | None,
    more_labels: Sequence[str] | None,
    missing: Sequence[str] | None,
    masks: str | None,
    mask_classes: str | None,
    problems: Path | None,
    as_json: bool,
) -> None:
    """Print what a source holds; names of files go nowhere but into the list that was asked for.

    With a label table or masks, print what they would be joined with, or what is wrong with them.
    """
    check_decoders()
    given = {
        "labels": labels,
        "label_column": label_column,
        "label_separator": label_separator,
        "findings": findings,
        "more_labels": more_labels,
        "missing": missing,
        "masks": masks,
        "mask_classes": mask_classes,
    }
    request = ask(IngestRequest, None, given)
    table = patient_table(request)
    if masks and table and not table.is_file():
        # The fault of the matcher says so.
        table = None
    opened = open_source(source, table)
    files = _listed(opened)
    matcher, fault = _matcher(request, files) if labels or masks else (None, "")
    owners = read_patients(table).by_file or {}
    overview, bad = _survey(opened, files, owners, matcher)
    preview = None
    try:
        preview = _result(matcher) if matcher else None
    except UserFault as contradiction:
        fault = str(contradiction)
    if problems:
        write_private_list(problems, ("file", "reason"), bad)
    # (dataclasses.asdict makes nonsense of counters.)
    content = {field.name: getattr(overview, field.name) for field in fields(overview)}
    content["proposed_configuration"] = proposed_configuration(overview)
    parts = [_rendered(overview)]
    if labels or masks:
        name, title = ("masks", "Masks") if masks else ("labels", "Labels")
        content[name] = asdict(preview) if preview else {"error": fault}
        parts += [_previewed(preview) if preview else f"\n[bold]{title}[/bold]: {escape(fault)}"]
    print_result(content, Group(*parts), as_json)


def _matcher(
    request: IngestRequest, files: Sequence[SourceFile]
) -> tuple[LabelMatcher | MaskMatcher | None, str]:
    """Return the matcher of the tables or masks, or why there is none: the source is shown all the same."""
    # Under a key of its own: nothing of it is kept.
    key, paths = Pseudonyms(token_bytes(KEY_BYTES)), label_paths(request)
    try:
        if request.masks:
            check_masks(request)
        if masks := read_masks_of(request, key, (file.name for file in files)):
            return MaskMatcher(masks.table, masks.classes, key), ""
        if request.has_findings:
            return open_finding_matcher(paths, key, finding_query(request)), ""
        return open_matcher(paths[0], key, request.label_column, request.missing), ""
    except UserFault as fault:
        return None, str(fault)


def _result(matcher: LabelMatcher | MaskMatcher) -> LabelPreview | MaskPreview:
    if isinstance(matcher, LabelMatcher):
        return matcher.result()
    setup = {"classes": matcher.classes.to_json()}
    with progress_bar("reading masks", "files") as on_progress, Pool(PEEK_MASKS, setup) as workers:
        return matcher.result(workers.map, on_progress)


def _listed(source: Source) -> list[SourceFile]:
    with Console(stderr=True).status("listing") as status:
        files = []
        for file in source.scan():
            files.append(file)
            if len(files) % 5000 == 0:
                status.update(f"listing: {len(files):,} files")
    return files


def _survey(
    source: Source,
    files: list[SourceFile],
    owners: Mapping[str, str | None],
    matcher: LabelMatcher | MaskMatcher | None,
) -> tuple[Overview, list[tuple[str, str]]]:
    counter, bad = OverviewCounter(owners=owners), list[tuple[str, str]]()
    with progress_bar("reading headers", "files") as on_progress, Pool(FUNCTION, {}) as workers:
        for file, header in peek_headers(source, files, workers.map):
            counter.add(file, header)
            if header.reason:
                bad.append((file.name, header.reason))
            elif matcher and header.has_pixels:
                matcher.add(file.name, header.attributes, counter.patient_of(file, header))
            if counter.counted.files % STEP == 0:
                on_progress(counter.counted.files, len(files))
    return counter.result(), bad


def _rendered(overview: Overview) -> RenderableType:
    parts: list[RenderableType] = [
        f"[bold]{quantity(overview.files, 'files')}[/bold], {overview.size_bytes / 2**30:.2f} GiB: "
        f"{quantity(overview.patients, 'patients')}, {quantity(overview.studies, 'studies')}, "
        f"{quantity(overview.series, 'series')}, {quantity(overview.frames, 'images')}, "
        f"{quantity(overview.volumes, 'volumes')}"
    ]
    for title, counts in (
        ("Formats", overview.formats),
        ("Modalities", overview.modalities),
        ("Transfer syntaxes", overview.syntaxes),
        ("Photometric interpretations", overview.photometrics),
        ("Manufacturers", overview.manufacturers),
        ("Columns x rows", overview.sizes),
    ):
        if counts:
            parts += [_table(title, "files", counts), ""]
    if overview.problems:
        parts += [_table("Problems", "files", overview.problems, meanings=True), ""]
    if overview.findings:
        parts.append(_table("Series", "series", overview.findings, meanings=True))
    if variants := overview.patient_variants:
        parts.append(
            f"{quantity(variants, 'patients')} {'is' if variants == 1 else 'are'} written in ways that may mean one "
            "patient (00123 and 123)"
        )
    if not overview.problems and not overview.findings:
        parts.append("no problems")
    if proposed := proposed_configuration(overview):
        parts += ["", "[bold]Proposed configuration[/bold], for --config:", yaml.safe_dump(proposed).rstrip()]
    return Group(*parts)


def _previewed(preview: LabelPreview | MaskPreview) -> RenderableType:
    return _labels_rendered(preview) if isinstance(preview, LabelPreview) else _masks_rendered(preview)


def _masks_rendered(preview: MaskPreview) -> RenderableType:
    counts = {
        "files without a mask": preview.files_without_mask,
        "files with two masks that contradict each other": preview.files_in_conflict,
        "files whose mask has other rows or columns": preview.of_other_size,
        "lines that name no file here": preview.lines_without_image,
        "lines that contradict another": preview.lines_in_conflict,
        "lines whose file of a mask is not there": preview.lines_without_file,
        "names of segments and regions that one patient alone has": preview.others_of_one_patient,
    }
    troubles = "; ".join(f"{what}: {count:,}" for what, count in counts.items() if count)
    classes = ", ".join(f"{escape(name)} {count:,}" for name, count in preview.classes.items())
    return Group(
        "",
        f"[bold]Masks[/bold], joined by {preview.level}: {quantity(preview.files, 'files')} of "
        f"{quantity(preview.patients, 'patients')} {'has' if preview.files == 1 else 'have'} one",
        f"Files of masks with each class: {classes}",
        *(
            _table(title, "files of masks", Counter(counted), meanings=meanings)
            for title, counted, meanings in (
                ("Kinds", preview.kinds, False),
                ("Other names", preview.others, False),
                ("Refused", preview.refused, True),
            )
            if counted
        ),
        *([troubles] if troubles else []),
    )


def _labels_rendered(preview: LabelPreview) -> RenderableType:
    table = Table("Labels", "lines", "files", title_justify="left", box=None, pad_edge=False)
    if preview.findings:
        table = Table(
            "Findings", *FILES_BY_SIDE, "lines with it", title_justify="left", box=None, pad_edge=False
        )
    for column in table.columns[1:]:
        column.justify = "right"
    for label, lines in preview.lines.items():
        sides = preview.findings.get(label, {})
        row = [*sides.values(), lines] if sides else [lines, preview.classes.get(label, 0)]
        table.add_row(escape(label), *(f"{count:,}" for count in row))
    counts = {
        "files without a label": preview.files_without_label,
        "files with two different labels": preview.files_in_conflict,
        "labels that name no file here": preview.lines_without_image,
        LINES_OF_OTHERS: preview.lines_of_others,
        "lines with a missing label": sum(preview.missing.values()),
        "lines with more or fewer columns than the first": preview.uneven_lines,
    }
    troubles = "; ".join(f"{what}: {count:,}" for what, count in counts.items() if count)
    return Group(
        "",
        f"[bold]Labels[/bold] in column {escape(preview.column)!r}, by {escape(', '.join(preview.identifiers))}: "
        f"{quantity(preview.files, 'files')} of {quantity(preview.patients, 'patients')} "
        f"{'has' if preview.files == 1 else 'have'} one",
        table,
        *([troubles] if troubles else []),
    )


def _table(title: str, unit: str, counts: Counter[str], *, meanings: bool = False) -> Table:
    table = Table(title, unit, title_justify="left", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    if meanings:
        table.add_column("what it means")
    for name, count in counts.most_common(TOP):
        table.add_row(escape(name), f"{count:,}", *([MEANINGS.get(name, "")] if meanings else []))
    if len(counts) > TOP:
        rest = sum(count for _, count in counts.most_common()[TOP:])
        table.add_row(f"{len(counts) - TOP} more", f"{rest:,}", *([""] if meanings else []))
    return table
