"""Readers of the pixels of a DICOM file: ours, and those of gdcm, SimpleITK and dcmtk."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gdcm
import numpy as np
import SimpleITK
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes, RLELossless

from imaging.dicom.attributes import TEXTS, Attributes, wanted
from imaging.dicom.dicom_object import open_object
from imaging.dicom.pixel_length import check_present
from imaging.dicom.pixels import layout_of, stored_frame
from imaging.dicom.transforms import PHOTOMETRIC
from imaging.errors import DataFault
from imaging.image.window import Window
from imaging.preprocess.slice import shown_levels
from imaging.preprocess.spec import PreprocessSpec
from imaging.sandbox.pool import Item, Pool

Pixels = NDArray[Any]
"""The frames of a file: (frames, rows, columns), or (frames, rows, columns, 3) of red, green and blue."""
TIMEOUT_S = 60
NO_WINDOW = "it offers no window"
TOOLS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    dict.fromkeys(JPEGTransferSyntaxes, ("dcmdjpeg", "+px"))
    | dict.fromkeys(JPEGLSTransferSyntaxes, ("dcmdjpls", "+px"))
    | {RLELossless: ("dcmdrle",)}
)
"""What of dcmtk's decodes a transfer syntax; it has nothing for JPEG 2000."""


class Unreadable(Exception):
    """A reader gives no pixels."""


def our_stored(path: Path) -> Pixels:
    """Return stored values; colour as RGB."""
    try:
        opened = open_object(path.read_bytes())
        layout = layout_of(opened.attributes)
        check_present(opened, layout)
        return np.stack([stored_frame(opened, layout, n) for n in range(layout.frames)])
    except DataFault as fault:
        raise Unreadable(str(fault)) from None


def our_values(path: Path) -> Pixels:
    """Return modality values; colour as RGB, a palette as brightness."""
    stored, opened = our_stored(path), open_object(path.read_bytes())
    if stored.ndim == 4:
        return stored
    make = PHOTOMETRIC[layout_of(opened.attributes).photometric]
    return np.stack(
        [make(opened, opened.frame_attributes(n), frame, n).values for n, frame in enumerate(stored)]
    )


def our_levels(path: Path) -> Pixels:
    """Return the first frame as it is shown by its first window, not rounded; only grey ones have one."""
    stored, opened = our_stored(path), open_object(path.read_bytes())
    image = PHOTOMETRIC[layout_of(opened.attributes).photometric](
        opened, opened.frame_attributes(0), stored[0], 0
    )
    if stored.ndim == 4 or not image.vois or not isinstance(image.vois[0], Window):
        raise Unreadable(NO_WINDOW)
    return shown_levels(image, PreprocessSpec(window="file"))


def gdcm_stored(path: Path) -> Pixels:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise Unreadable("it does not read the file")
    image = reader.GetImage()
    kind = image.GetPixelFormat()
    columns, rows, frames = (*image.GetDimensions(), 1)[:3]
    shape = (frames, rows, columns, kind.GetSamplesPerPixel())
    # Its bytes come as text: those that are no UTF-8 as surrogates.
    text = image.GetBuffer()
    if text is None:
        raise Unreadable("it does not decode the file")
    raw = text.encode("utf-8", "surrogateescape")
    if kind.GetBitsAllocated() == 1:
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        return bits[: frames * rows * columns].reshape(shape[:3])
    letter = "i" if kind.GetPixelRepresentation() else "u"
    flat = np.frombuffer(raw, f"{letter}{kind.GetBitsAllocated() // 8}")
    photometric = image.GetPhotometricInterpretation().GetString().strip()
    values = _arranged(flat, shape, planar=image.GetPlanarConfiguration() == 1, photometric=photometric)
    return meant(values, kind.GetBitsStored(), kind.GetHighBit())


def sitk_values(path: Path) -> Pixels:
    """Return modality values, as ITK rescales them; colour as RGB."""
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    except RuntimeError as error:
        raise Unreadable(str(error).strip().splitlines()[-1]) from None
    return np.asarray(values)


def dcmtk_stored(path: Path) -> Pixels:
    syntax = str(dcmread(path, stop_before_pixels=True, force=True).file_meta.get("TransferSyntaxUID", ""))
    if syntax in JPEG2000TransferSyntaxes:
        raise Unreadable("it has no JPEG 2000")
    with tempfile.TemporaryDirectory() as folder:
        native = Path(folder) / "native.dcm"
        run(*TOOLS.get(syntax, ("dcmconv", "+te")), str(path), str(native))
        dataset = dcmread(native)
    if not {"PixelData", "BitsAllocated", "Rows"} <= set(dataset.dir()):
        raise Unreadable("it keeps no image")
    bits, photometric = dataset.BitsAllocated, dataset.PhotometricInterpretation
    frames = str(dataset.get("NumberOfFrames") or 1)
    if not frames.isdigit():
        raise Unreadable("it keeps a number of frames that is none")
    shape = (int(frames), dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)
    if bits == 1:
        flat = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
        return flat[: shape[0] * shape[1] * shape[2]].reshape(shape[:3])
    flat = np.frombuffer(dataset.PixelData, f"<{'i' if dataset.PixelRepresentation else 'u'}{bits // 8}")
    values = _arranged(flat, shape, planar=dataset.get("PlanarConfiguration") == 1, photometric=photometric)
    return meant(values, dataset.BitsStored, dataset.HighBit)


def dcmtk_levels(path: Path) -> Pixels:
    """Return the first frame as dcm2pnm shows it by the first window of the file, 0..255."""
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder) / "shown.pgm"
        run("dcm2pnm", "+Wi", "1", "-O", "+op", str(path), str(shown))
        head, size, most, data = shown.read_bytes().split(b"\n", 3)
    if head != b"P5" or most != b"255":
        raise Unreadable("it shows no grey levels")
    columns, rows = map(int, size.split())
    return np.frombuffer(data, np.uint8).reshape(rows, columns)


def our_attributes(path: Path) -> Attributes:
    try:
        return open_object(path.read_bytes()).attributes
    except DataFault as fault:
        raise Unreadable(str(fault)) from None


def dcmtk_attributes(path: Path) -> Attributes:
    """Return the attributes that we read too, as dcmdump prints them."""
    attributes: dict[str, Any] = {}
    for line in run("dcmdump", "-q", "+L", "-Un", "+uc", "-M", str(path)).splitlines():
        at_top = line[:1] == "(" and line[10:11] == ")"
        keyword = wanted().get(int(line[1:5] + line[6:10], 16), ("", ""))[0] if at_top else ""
        text = line[15:].rsplit("#", 1)[0].strip()
        if keyword and text != "(no value available)":
            parts = [part.strip() for part in text.removeprefix("[").removesuffix("]").split("\\")]
            attributes[keyword] = "\\".join(parts).strip() if keyword in TEXTS else _numbers(parts)
    return {keyword: value for keyword, value in attributes.items() if value != ""}


def _numbers(parts: list[str]) -> tuple[float, ...] | str:
    try:
        return tuple(map(float, parts))
    except ValueError:
        return "\\".join(parts)


def run(*command: str) -> str:
    """Run a tool of dcmtk's and return its output."""
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        lines = done.stderr.decode("latin-1").strip().splitlines()
        raise Unreadable(lines[-1] if lines else f"status {done.returncode}")
    return done.stdout.decode("latin-1")


def meant(values: Pixels, stored: int, high_bit: int) -> Pixels:
    """Return what BitsStored and HighBit say of stored values (PS3.5 8.1.1), in whole numbers without a size."""
    if stored >= values.dtype.itemsize * 8:
        return values
    part = (values.astype(np.int64) >> (high_bit + 1 - stored)) & (2**stored - 1)
    return np.where((part >> (stored - 1) == 1) & (values.dtype.kind == "i"), part - 2**stored, part)


def _arranged(flat: Pixels, shape: tuple[int, ...], *, planar: bool, photometric: str) -> Pixels:
    """Return samples as (frames, rows, columns) or RGB (frames, rows, columns, 3)."""
    frames, rows, columns, samples = shape
    if samples == 1:
        return flat[: frames * rows * columns].reshape(shape[:3])
    if planar:
        values = flat[: np.prod(shape)].reshape(frames, samples, rows, columns).transpose(0, 2, 3, 1)
    elif photometric == "YBR_FULL_422" and flat.size < np.prod(shape):
        # Two pixels of four samples: their own brightness, and colour that they share (PS3.3 C.7.6.3.1.2).
        pairs = flat[: frames * rows * columns * 2].reshape(frames, rows, columns // 2, 4)
        values = pairs[..., [0, 2, 3, 1, 2, 3]].reshape(shape)
    else:
        values = flat[: np.prod(shape)].reshape(shape)
    return _rgb(values) if photometric in ("YBR_FULL", "YBR_FULL_422") else values


def _rgb(ybr: Pixels) -> Pixels:
    """Return red, green and blue by the equations of PS3.3 C.7.6.3.1.2."""
    y, b, r = np.moveaxis(ybr.astype(np.float64), -1, 0)
    b, r = b - 128, r - 128
    values = np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b], axis=-1)
    return np.clip(np.floor(values + 0.5), 0, 255)


Reader = Callable[[Path], Any]
Pair = tuple[Reader, Reader]
ALONE: Mapping[str, Pair] = MappingProxyType(
    {
        "SimpleITK": (our_values, sitk_values),
        "dcmtk": (our_stored, dcmtk_stored),
        "dcm2pnm": (our_levels, dcmtk_levels),
        "dcmdump": (our_attributes, dcmtk_attributes),
    }
)
"""The name of a reader to ours and its own, which must give the same: stored or modality values, levels, attributes."""


@contextmanager
def pairs() -> Iterator[Mapping[str, Pair]]:
    """Give all readers; gdcm works in our sandbox, for it ends the process where it finds what it does not expect."""
    with Pool("bench.other_readers:gdcm_in_worker", {}, workers=1) as pool:

        def apart(path: Path) -> Pixels:
            (outcome,) = pool.map([Item({"path": str(path)})])
            if isinstance(outcome, DataFault):
                raise Unreadable(str(outcome))
            return np.frombuffer(outcome.blobs[0], outcome.value["kind"]).reshape(outcome.value["shape"])

        yield {"gdcm": (our_stored, apart), **ALONE}


def gdcm_in_worker(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """Read a file; a `Function` of the sandbox."""
    try:
        pixels = gdcm_stored(Path(value["path"]))
    except Unreadable as error:
        raise DataFault("undecodable", str(error)) from None
    return {"shape": pixels.shape, "kind": pixels.dtype.str}, [pixels.tobytes()]
