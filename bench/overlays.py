"""Synthetic text as devices and people burn it into images: drawn from a seed, by kind, so that misses can be named."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread

MATPLOTLIB = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
DEBIAN = Path("/usr/share/fonts/truetype")


@dataclass(frozen=True, slots=True)
class Hand:
    """What writes: outline fonts by file, the stroke alphabets of OpenCV, and what names and numbers it knows."""

    outlines: tuple[str, ...]
    strokes: tuple[int, ...]
    names: tuple[str, ...]
    titles: tuple[str, str]


SEEN = Hand(
    outlines=(
        *(f"DejaVu{kind}.ttf" for kind in ("Sans", "Sans-Bold", "Sans-Oblique", "SansMono", "SansMono-Bold")),
        *(f"DejaVu{kind}.ttf" for kind in ("Serif", "Serif-Bold", "Serif-Italic")),
        *(f"STIXGeneral{kind}.ttf" for kind in ("", "Bol", "Italic")),
        *("cmr10.ttf", "cmb10.ttf", "cmti10.ttf"),
        *(f"liberation/Liberation{kind}-Regular.ttf" for kind in ("Mono", "Sans", "SansNarrow", "Serif")),
        *(f"liberation/Liberation{kind}-Bold.ttf" for kind in ("Mono", "Sans", "Serif")),
    ),
    strokes=(cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_COMPLEX_SMALL),
    names=(
        *("DOE^JOHN", "Müller, Anna", "SMITH JANE", "Nguyen Thi Mai"),
        *("GARCIA, LUIS", "O'NEIL^PAT", "Weiß Jörg"),
    ),
    titles=("ID", "Acc"),
)
"""What the networks of ours were trained on."""
UNSEEN = Hand(
    outlines=(
        *("cmss10.ttf", "cmtt10.ttf"),
        *(f"freefont/Free{kind}.ttf" for kind in ("Sans", "SansBold", "Serif", "Mono")),
        *(f"lato/Lato-{weight}.ttf" for weight in ("Regular", "Bold")),
        *(f"roboto/unhinted/RobotoTTF/Roboto-{weight}.ttf" for weight in ("Regular", "Bold")),
        "roboto/unhinted/RobotoCondensed-Regular.ttf",
        *(f"open-sans/OpenSans-{weight}.ttf" for weight in ("Regular", "Semibold")),
        *("hack/Hack-Regular.ttf", "noto/NotoSansMono-Regular.ttf"),
    ),
    strokes=(cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX),
    names=(
        *("KOWALSKI^EWA", "Rossi, Paolo", "HASHIMOTO KEI", "van der Berg Bram"),
        *("D'ANGELO, ROSA", "Ångström Åsa", "BROWN^TYRONE"),
    ),
    titles=("MRN", "Study"),
)
"""What no network of ours was trained on, nor any threshold set on: what is measured."""
SIZES_PX = (9, 10, 11, 12, 13, 14, 16, 18, 20, 24, 28, 36)
"""Heights of the font. Below nine pixels letters look alike."""
ROSE = 5.0
WAYS = ("upright", "quarter", "half", "three-quarter", "slanted")

Alpha = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Overlay:
    """One text in one image: where it lies, and what it was drawn from."""

    stored: NDArray[np.generic]
    mask: NDArray[np.bool_]
    kind: str


def patients_apart(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the slices of ct-contrast that networks are trained on and those of all other patients."""
    paths = sorted((folder / "ct-contrast").glob("*.dcm"))
    numbers = [str(dcmread(path, specific_tags=["PatientID"]).PatientID) for path in paths]
    test_numbers = set(sorted(set(numbers))[::2])
    sides: tuple[list[Path], list[Path]] = ([], [])
    for path, number in zip(paths, numbers, strict=True):
        sides[number in test_numbers].append(path)
    return sides


def corner_text(random: np.random.Generator, hand: Hand) -> str:
    """Return what usually stands in the corner of an image: a name, an identifier, a date, or two of them."""
    parts = (
        str(random.choice(hand.names)),
        f"{hand.titles[0]} {random.integers(10**4, 10**8)}",
        f"{random.integers(1, 29):02}.{random.integers(1, 13):02}.{random.integers(1930, 2027)}",
        f"{random.integers(1930, 2027)}-{random.integers(1, 13):02}-{random.integers(1, 29):02}",
        f"{random.integers(10**5, 10**7)}",
        f"{hand.titles[1]} {random.integers(10**6, 10**8)}",
    )
    return " ".join(random.choice(parts, random.integers(1, 3), replace=False))


@cache
def fonts(hand: Hand, size_px: int) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, ...]:
    """Return a hand's fonts at a size: matplotlib's, and those of Debian's that are installed here."""
    paths = [folder / name for name in hand.outlines for folder in (MATPLOTLIB, DEBIAN)]
    loaded = [ImageFont.truetype(str(path), size_px) for path in paths if path.is_file()]
    return (*loaded, ImageFont.load_default(size_px)) if hand is SEEN else tuple(loaded)


def typeset(random: np.random.Generator, hand: Hand, size_px: int) -> tuple[Alpha, str]:
    """Return the cover of each pixel by a text, 0 to 1, and the name of the way it was drawn."""
    text = corner_text(random, hand)
    if random.random() < 0.25:
        return _hershey(int(random.choice(hand.strokes)), text, size_px), "hershey"
    known = fonts(hand, size_px)
    font = known[random.integers(len(known))]
    smooth = bool(random.random() < 0.6)
    left, top, right, bottom = map(int, font.getbbox(text))
    canvas = Image.new("L", (right - left + 4, bottom - top + 4))
    drawing = ImageDraw.Draw(canvas)
    drawing.fontmode = "L" if smooth else "1"
    drawing.text((2 - left, 2 - top), text, 255, font)
    return np.asarray(canvas, np.float32) / 255, "smooth" if smooth else "hard"


def _hershey(font: int, text: str, size_px: int) -> Alpha:
    # Of seven pixels and less, its letters run together.
    scale = cv2.getFontScaleFromHeight(font, max(int(size_px * 0.72), 8), 1)
    plain = text.encode("ascii", "replace").decode()
    (width, height), below = cv2.getTextSize(plain, font, scale, 1)
    canvas = np.zeros((height + below + 6, width + 6), np.uint8)
    cv2.putText(canvas, plain, (3, height + 2), font, scale, 255, 1, cv2.LINE_AA)
    return canvas.astype(np.float32) / 255


def turned(random: np.random.Generator, alpha: Alpha, way: str) -> Alpha:
    """Return the text upright, in quarter turns, or slanted by 5 to 45 degrees."""
    if way != "slanted":
        return np.rot90(alpha, WAYS.index(way))
    degrees = float(random.choice((-1, 1)) * random.uniform(5, 45))
    height, width = alpha.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = int(height * sine + width * cosine) + 1, int(height * cosine + width * sine) + 1
    matrix[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    return cv2.warpAffine(alpha, matrix, size).astype(np.float32)


def ink(
    random: np.random.Generator, under: NDArray[np.generic], image: NDArray[np.generic], bits: int
) -> tuple[float, str]:
    """Return the stored value of the text and its name: an end of the range, the brightest, or a faint step."""
    low, high = np.percentile(image[::4, ::4], (2, 98))
    way = str(random.choice(("range", "brightest", "dark", "faint"), p=(0.3, 0.3, 0.1, 0.3)))
    middle = float(np.median(under))
    signed = image.dtype.kind == "i"
    ends = {"range": 2.0 ** (bits - signed) - 1, "brightest": float(image.max()), "dark": float(image.min())}
    step = float(random.uniform(0.12, 0.25)) * float(high - low)
    faint = middle + step if middle + step <= image.max() else middle - step
    if way == "dark" and middle - ends["dark"] < step:
        # Dark on dark cannot be read: it is written bright.
        way = "brightest"
    return ends.get(way, faint), way


def burn(random: np.random.Generator, image: NDArray[np.generic], bits: int, hand: Hand = SEEN) -> Overlay:
    """Return the image, (rows, columns), with one text that can be read, anywhere in it."""
    way = str(random.choice(WAYS, p=(0.5, 0.125, 0.125, 0.125, 0.125)))
    size_px = int(random.choice(SIZES_PX))
    while True:
        alpha, style = typeset(random, hand, size_px)
        alpha = turned(random, alpha, way)
        if alpha.shape[0] >= image.shape[0] or alpha.shape[1] >= image.shape[1]:
            size_px = max(size_px - 2, SIZES_PX[0])
            continue
        row = int(random.integers(image.shape[0] - alpha.shape[0]))
        column = int(random.integers(image.shape[1] - alpha.shape[1]))
        place = np.s_[row : row + alpha.shape[0], column : column + alpha.shape[1]]
        value, shade = ink(random, image[place], image, bits)
        if stands_out(image[place], alpha > 0.4, value):
            break
    stored = image.copy()
    stored[place] = np.rint(image[place] * (1 - alpha) + value * alpha).astype(image.dtype)
    mask = np.zeros(image.shape, bool)
    mask[place] = alpha > 0.4
    return Overlay(stored, mask, f"{way} {style} {shade} {size_px}px")


def stands_out(under: NDArray[np.generic], inked: NDArray[np.bool_], value: float) -> bool:
    """Tell whether ink stands out from what lies under it: by five times the noise (Rose 1948).

    Noise is what differs from the mean of five by five pixels.
    """
    grey = under.astype(np.float32)
    # By the median, so that an edge under the text is no noise.
    noise = 1.4826 * float(np.median(np.abs(grey - cv2.blur(grey, (5, 5)))))
    return bool(inked.any()) and float(np.median(np.abs(grey[inked] - value))) >= ROSE * noise
