"""Check whether the pixels of an object may pass: burned-in text and faces stop it, and so does doubt."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.pixels.attribute_values import attribute_texts
from imaging.deidentify.pixels.blank import blank, blanked
from imaging.deidentify.pixels.coded_frames import coded_frame
from imaging.deidentify.pixels.faces import check_face
from imaging.deidentify.pixels.text_candidates import Region
from imaging.deidentify.pixels.text_detector import find_text
from imaging.dicom.dicom_object import DicomObject, open_object
from imaging.dicom.elements import Buffer
from imaging.dicom.header import shows_slide_label
from imaging.dicom.parse import reading
from imaging.dicom.pixel_length import check_present
from imaging.dicom.pixels import Layout, layout_of, stored_frame
from imaging.errors import DataFault

USUAL_MODALITIES = frozenset(
    {"US", "IVUS", "BDUS", "ES", "XC", "OT", "SC", "DOC", "ECG", "HD", "EPS", "GM", "SM"}
)
"""Modalities that write into their images, or whose images may come from paper."""
USUAL_KINDS = frozenset(
    {"SECONDARY", "SCREEN SAVE", "SCREENSHOT", "SCREEN_CAPTURE", "DOSE_INFO", "REPORT", "LOCALIZER"}
)
"""Values of ImageType of images that were drawn, or have lines and numbers drawn into them."""
CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary captures of all kinds (PS3.4 B.5)."""
PASSES = 3
"""Times that regions are blanked before an object is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSearch:
    """A search for text in the pixels of an object; thorough in some frames where text is usual."""

    dataset: Dataset
    opened: DicomObject
    layout: Layout
    is_text_usual: bool

    def regions(self, known: Collection[Region] = ()) -> Iterator[tuple[int, Region]]:
        """Yield the number of a frame and a region of text in it, searched with the known regions blanked."""
        # A device that writes into its images does so in all frames; the screen sees every frame anyway.
        frames = self.layout.frames
        thorough = {0, frames // 2, frames - 1} if self.is_text_usual else set()
        for index in range(frames):
            for stored in self._stored(index):
                for picture in self._pictures(blanked(stored, self.layout, known)):
                    for region in find_text(picture, thorough=index in thorough):
                        yield index, region

    def _stored(self, index: int) -> Iterator[NDArray[Any]]:
        """Yield the values of a frame without bits outside BitsStored, and those with padding that has such bits."""
        plain, padding = replace(self.layout, padding=None), self.layout.padding
        goes_on = False
        try:
            if self.opened.encapsulated:
                stored, goes_on = coded_frame(self.opened, plain, index)
            else:
                stored = stored_frame(self.opened, plain, index)
        except DataFault as fault:
            raise _doubt(fault) from None
        if goes_on:
            raise DataFault("surplus-data", "a compressed frame goes on behind its last pixel")
        yield stored
        if padding is not None and not self.opened.encapsulated:
            # As it is written: all padding is one value.
            padded = stored_frame(self.opened, self.layout, index).copy()
            padded[(padded >= padding[0]) & (padded <= padding[1])] = max(
                padding[0], int(np.iinfo(padded.dtype).min)
            )
            yield padded

    def _pictures(self, frame: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Yield a frame as it is shown, and as it is stored: two entries of a palette may be of one colour."""
        if self.layout.photometric == "PALETTE COLOR":
            with reading("burned-in-doubt"):
                shown = np.asarray(apply_color_lut(frame, self.dataset))
            yield shown
        yield frame


def check_pixels(dataset: Dataset, data: Buffer, options: DeidentifyOptions) -> Dataset:
    """Return the data set to be scrubbed: the same, or one with its text blanked where the options ask for that.

    `dataset` is what `parse` returned for the file `data`, unchanged. BurnedInAnnotation NO is not trusted.
    Raises DataFault "burned-in-text", "burned-in-doubt" (text could not be looked for), "surplus-data" or "face".
    """
    check_face(dataset, options)
    burned_in, kinds = (attribute_texts(dataset, name) for name in ("BurnedInAnnotation", "ImageType"))
    if shows_slide_label(attribute_texts(dataset, "Modality"), kinds):
        # A label has bar codes and handwriting too, which no search for text finds: it is not blanked either.
        raise DataFault("burned-in-text", "the picture is a slide's label, or shows it (LABEL, OVERVIEW)")
    declared = "YES" in burned_in
    if declared and options.burned_in == "quarantine":
        raise DataFault("burned-in-text", "BurnedInAnnotation is YES")
    search = _text_search(dataset, data, is_text_usual=declared or is_text_usual(dataset))
    if search is None:
        return dataset
    if options.burned_in == "blank":
        return _without_text(search, declared)
    for index, region in search.regions():
        size = f"{region.right - region.left} x {region.bottom - region.top} pixels"
        raise DataFault("burned-in-text", f"in frame {index} of {search.layout.frames}, {size}")
    return dataset


def is_text_usual(dataset: Dataset) -> bool:
    """Tell whether text is usual in the images of a device of this kind."""
    modality, kinds = set(attribute_texts(dataset, "Modality")), set(attribute_texts(dataset, "ImageType"))
    captured = any(uid.startswith(CAPTURES) for uid in attribute_texts(dataset, "SOPClassUID"))
    return captured or not modality or bool(modality & USUAL_MODALITIES) or bool(kinds & USUAL_KINDS)


def _text_search(dataset: Dataset, data: Buffer, *, is_text_usual: bool) -> TextSearch | None:
    try:
        opened = open_object(data)
        if not opened.pixels:
            return None
        layout = layout_of(opened.attributes)
        check_present(opened, layout)
    except DataFault as fault:
        raise _doubt(fault) from None
    return TextSearch(dataset=dataset, opened=opened, layout=layout, is_text_usual=is_text_usual)


def _without_text(search: TextSearch, declared: bool) -> Dataset:
    known: set[Region] = set()
    for _ in range(PASSES):
        new = {region for _, region in search.regions(known)}
        known |= new
        if new:
            continue
        if declared and not known:
            raise DataFault(
                "burned-in-text", "the header says that there is text, and none was found to blank"
            )
        return blank(search.dataset, search.opened, search.layout, known) if known else search.dataset
    raise DataFault("burned-in-text", f"there is still text after its regions were blanked {PASSES} times")


def _doubt(fault: DataFault) -> DataFault:
    return DataFault("burned-in-doubt", f"{fault.reason}: {fault.detail}")
