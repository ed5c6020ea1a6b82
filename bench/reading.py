"""Speed of reading DICOM slices: raw, compressed, windowed and resized, beside the libraries alone.

On the real slices of ct-contrast, all in the page cache, one core; candidates take turns, all files a turn.
"""

import argparse
import mmap
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from bench.interleaved import interleave, row
from imaging.dicom.attributes import Attributes
from imaging.dicom.dicom_object import open_object
from imaging.dicom.limits import LIMITS
from imaging.dicom.pixel_length import check_present
from imaging.dicom.pixels import layout_of, stored_frame
from imaging.file_io import FileBuffer
from imaging.image.image import Image
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec

Encoder = Callable[[np.ndarray], bytes]
CODECS: dict[str, tuple[str, Encoder, Callable[[bytes], object]]] = {
    "JPEG-LS": (JPEGLSLossless, imagecodecs.jpegls_encode, imagecodecs.jpegls_decode),
    "JPEG lossless": (JPEGLosslessSV1, imagecodecs.ljpeg_encode, imagecodecs.jpeg8_decode),
    "JPEG 2000": (
        JPEG2000Lossless,
        lambda image: imagecodecs.jpeg2k_encode(image, level=0, reversible=True, codecformat="J2K"),
        imagecodecs.jpeg2k_decode,
    ),
    "HTJ2K": (HTJ2KLossless, imagecodecs.htj2k_encode, imagecodecs.htj2k_decode),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    root = Path(os.environ.get("RADLOOP_DATA", Path(__file__).parent.parent.parent / "shared/data"))
    paths = sorted((root / "ct-contrast").glob("*.dcm"))[: arguments.files]
    cv2.setNumThreads(1)
    print("| what | ours | beside | speed | asked for |\n|---|---|---|---|---|")
    raw(paths, arguments.rounds)
    with tempfile.TemporaryDirectory() as folder:
        compressed(paths[:10], Path(folder), max(arguments.rounds // 3, 3))
    resized(paths, arguments.rounds)


def read(buffer: FileBuffer, path: Path) -> tuple[Attributes, np.ndarray]:
    """Read a file as ingest does: its attributes (more than 21) and the stored values of its frame."""
    opened = open_object(buffer.load(path, LIMITS.file_bytes))
    layout = layout_of(opened.attributes)
    check_present(opened, layout)
    return opened.attributes, stored_frame(opened, layout, 0)


def read_fresh(path: Path) -> None:
    """Read a file into memory that the process did not have: what `open().read()` costs where the bytes are kept.

    In a loop that drops them, the C library hands out the same memory again, sooner or later.
    """
    with path.open("rb") as file, mmap.mmap(-1, path.stat().st_size) as memory:
        file.readinto(memory)


def raw(paths: list[Path], rounds: int) -> None:
    buffer = FileBuffer()
    few = min(len(read(buffer, path)[0]) for path in paths)
    took = interleave(
        {
            "ours": lambda at: read(buffer, paths[at]),
            "open().read()": lambda at: paths[at].open("rb").read(),
            "the same, kept": lambda at: read_fresh(paths[at]),
            "without the walk": lambda at: buffer.load(paths[at], LIMITS.file_bytes),
            "pydicom": lambda at: dcmread(paths[at]).pixel_array,
        },
        len(paths),
        rounds,
    )
    print(row(f"raw slice and {few} attributes or more", took, "ours", 1.0, "open().read()"))
    print(row("the same", took, "ours", 1.0, "the same, kept"))
    print(row("the same", took, "ours", 5.0, "pydicom"))
    print(row("our read alone", took, "without the walk", 1.0, "open().read()"))


def compressed(paths: list[Path], folder: Path, rounds: int) -> None:
    buffer = FileBuffer()
    for name, (syntax, encode, decode) in CODECS.items():
        streams, files = [], []
        for number, path in enumerate(paths):
            dataset = dcmread(path)
            stored = dataset.pixel_array.astype(np.int32)
            # Lossless JPEG and JPEG-LS know no sign; the same bits for all codecs.
            streams.append(encode((stored - stored.min()).astype(np.uint16)))
            dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 0, 16, 15
            dataset.PixelData = encapsulate([streams[-1]])
            dataset["PixelData"].is_undefined_length = True
            dataset.file_meta.TransferSyntaxUID = syntax
            files.append(folder / f"{name}-{number}")
            dataset.save_as(files[-1], implicit_vr=False, little_endian=True)
        took = interleave(
            {
                "ours": lambda at, f=files: read(buffer, f[at]),
                "the codec": lambda at, s=streams, d=decode: d(s[at]),
                "ljpeg": lambda at, s=streams, n=name: (
                    n == "JPEG lossless" and imagecodecs.ljpeg_decode(s[at])
                ),
            },
            len(paths),
            rounds,
        )
        print(row(name, took, "ours", 0.92, "the codec"), flush=True)
        if name == "JPEG lossless":
            print(row("the same", took, "ours", 0.92, "ljpeg"), flush=True)
    rle(paths, folder, rounds, buffer)


def rle(paths: list[Path], folder: Path, rounds: int, buffer: FileBuffer) -> None:
    files = []
    for number, path in enumerate(paths):
        dataset = dcmread(path)
        dataset.compress(RLELossless)
        files.append(folder / f"rle-{number}")
        dataset.save_as(files[-1])
    took = interleave(
        {"ours": lambda at: read(buffer, files[at]), "pydicom": lambda at: dcmread(files[at]).pixel_array},
        len(files),
        rounds,
    )
    print(row("RLE", took, "ours", 2.0, "pydicom"))


def resized(paths: list[Path], rounds: int) -> None:
    images = []
    for path in paths:
        attributes, stored = read(FileBuffer(), path)
        intercept = attributes.get("RescaleIntercept", (0.0,))
        assert isinstance(intercept, tuple)
        images.append(Image(stored=stored.copy(), intercept=intercept[0]))
    plain = [image.stored.astype(np.float32) for image in images]
    for size in (224, 256):
        spec = PreprocessSpec(size_px=size)
        worst = max(float(np.abs(prepare(one, spec) - exact(one, spec)).max()) for one in images)
        took = interleave(
            {
                "ours": lambda at, s=spec: prepare(images[at], s),
                "INTER_AREA": lambda at, n=size: cv2.resize(plain[at], (n, n), interpolation=cv2.INTER_AREA),
            },
            len(images),
            rounds,
        )
        print(
            row(
                f"window and resize to {size}, at most {worst:.2f} levels off",
                took,
                "ours",
                0.9,
                "INTER_AREA",
            )
        )


def exact(image: Image, spec: PreprocessSpec) -> np.ndarray:
    """Return the levels of the window and the area average in double precision, without rounding."""
    lower, upper = spec.portable_window.bounds
    shown = np.clip((image.stored.astype(np.float64) + image.intercept - lower) / (upper - lower), 0, 1) * 255
    side, size = len(shown), spec.size_px
    start, pixel = np.arange(size)[:, None] * (side / size), np.arange(side)[None, :]
    overlap = np.clip(np.minimum(start + side / size, pixel + 1) - np.maximum(start, pixel), 0, None)
    weights = overlap / (side / size)
    return weights @ shown @ weights.T


if __name__ == "__main__":
    main()
