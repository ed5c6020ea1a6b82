"""NPZ file in MedMNIST's layout as a source: small grey images with labels and fixed parts."""

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imaging.errors import UserFault
from imaging.image.image import Image
from imaging.image.instance import Instance
from imaging.image.window import IDENTITY
from imaging.pixel_digests import pixel_digest
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.protocol import Payload, SourceFile

LAYOUTS: tuple[Mapping[str, tuple[str, str]], ...] = (
    {part: (f"{part}_images", f"{part}_labels") for part in ("train", "val", "test")},
    {part: (f"x_{part}", f"y_{part}") for part in ("train", "val", "test")},
)
"""The keys of images and labels for each part: MedMNIST v2 (Yang et al. 2023), then Keras' mnist.npz."""

ROWS_A_FILE = 512
SIZES_PX = (16, 1024)
"""Bounds of `PreprocessSpec.size_px`."""

VAL_SHARE = 12
VAL_SEED = 0
BROKEN = (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
"""Errors of numpy for a file that is no NPZ, is cut short, or contains pickled objects."""

RANGE = re.compile(r"(?P<part>train|val|test)\[(?P<start>\d+):(?P<stop>\d+)\]")


class MedMnistFile:
    """Rows of an NPZ file; a range of rows stands for a file.

    Where the file has no val part, one in twelve rows of train is val: the last twelfth of a permutation
    drawn from seed 0. Labels are whole numbers, kept as text.
    """

    kind = "medmnist"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()

    def default_spec(self) -> PreprocessSpec:
        """Return the spec that leaves the grey levels as they are, and the size where a model takes it."""
        longer = int(max(self.images["train"].shape[1:]))
        return PreprocessSpec.grey_levels(min(max(longer, SIZES_PX[0]), SIZES_PX[1]))

    def scan(self) -> Iterator[SourceFile]:
        """List ranges of 512 rows, "train[0:512]" and so on."""
        mtime_ns = self.path.stat().st_mtime_ns
        for part, images in self.images.items():
            for start in range(0, len(images), ROWS_A_FILE):
                rows = images[start : start + ROWS_A_FILE]
                name = f"{part}[{start}:{start + len(rows)}]"
                yield SourceFile(name=name, size_bytes=rows.nbytes, mtime_ns=mtime_ns)

    def fetch(self, file: SourceFile) -> Payload:
        """Hand over a range of rows: the whole file, and which of its rows."""
        return Payload(format=self.kind, name=file.name, contents=(self.path,))

    def instances(self, name: str) -> Iterator[Instance]:
        """Yield the instances of a range of rows that `scan` listed."""
        match = RANGE.fullmatch(name)
        images = self.images.get(match["part"], ()) if match else ()
        if match is None or int(match["stop"]) > len(images):
            raise UserFault(f"{name!r} is no range of rows of {self.path.name}: scan the file again")
        for row in range(int(match["start"]), int(match["stop"])):
            yield self._instance(match["part"], row)

    @cached_property
    def images(self) -> Mapping[str, NDArray[np.uint8]]:
        """The images of each part, (rows, height, width) grey levels."""
        return {part: _checked_images(key, self._arrays[key]) for part, (key, _) in self._keys.items()}

    @cached_property
    def labels(self) -> Mapping[str, NDArray[np.integer]]:
        """The label of each row of each part."""
        counts = {part: len(images) for part, images in self.images.items()}
        return {
            part: _checked_labels(key, self._arrays[key], counts[part])
            for part, (_, key) in self._keys.items()
        }

    def _instance(self, part: str, row: int) -> Instance:
        image, name = self.images[part][row], f"{part}-{row}"
        # A row is its pixels: there is no file around them.
        digest = pixel_digest(image).hex()
        return Instance(
            patient_id=name,
            study_uid=name,
            series_uid=name,
            sop_instance_uid=name,
            image=Image(stored=image, vois=(IDENTITY,)),
            content_blake3=digest,
            pixel_blake3=digest,
            attributes={"modality": "OT", "rows": image.shape[0], "columns": image.shape[1]},
            label=str(self.labels[part][row]),
            split="val" if part == "train" and row in self._val_rows else part,
        )

    @cached_property
    def _val_rows(self) -> frozenset[int]:
        """Rows of train that replace a missing val part."""
        if "val" in self.images:
            return frozenset()
        rows = len(self.images["train"])
        order = np.random.default_rng(VAL_SEED).permutation(rows)
        return frozenset(order[rows - rows // VAL_SHARE :].tolist())

    @cached_property
    def _keys(self) -> Mapping[str, tuple[str, str]]:
        for layout in LAYOUTS:
            keys = {part: pair for part, pair in layout.items() if self._arrays.keys() >= set(pair)}
            if {"train", "test"} <= keys.keys():
                return keys
        wanted = " or ".join(", ".join((*layout["train"], *layout["test"])) for layout in LAYOUTS)
        raise UserFault(f"{self.path.name} holds {', '.join(self._arrays) or 'nothing'}; needed are {wanted}")

    @cached_property
    def _arrays(self) -> Mapping[str, NDArray[np.generic]]:
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                return dict(archive)
        except BROKEN as error:
            raise UserFault(
                f"{self.path} is no NPZ file of plain arrays ({error}): write it with numpy.savez"
            ) from None


def _checked_images(key: str, array: NDArray[np.generic]) -> NDArray[np.uint8]:
    if array.ndim != 3 or array.dtype != np.uint8 or not len(array):
        raise UserFault(
            f"{key} is {array.dtype} of shape {array.shape}; "
            "grey images are taken in, uint8 of shape (rows, height, width): convert colour and volumes first"
        )
    return array.view(np.uint8)


def _checked_labels(key: str, array: NDArray[np.generic], rows: int) -> NDArray[np.integer]:
    if array.shape not in ((rows,), (rows, 1)) or not np.issubdtype(array.dtype, np.integer):
        raise UserFault(
            f"{key} is {array.dtype} of shape {array.shape}; "
            f"needed is one whole number for each of {rows} images"
        )
    return array.reshape(rows).astype(np.int64)
