"""Mutations of a file; each takes its random choices from a generator that the caller gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from struct import pack, pack_into, unpack_from
from types import MappingProxyType

from pydicom.uid import RLELossless

from bench.seeds import Element, Seed
from imaging.dicom.elements import ITEM, LONG, SHORT, UNDEFINED

NUMBERS = (0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 31, 32, 64, 255, 256, 4096, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
HUGE = (0x10000, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, UNDEFINED)
COUNTS = (
    "",
    "-1",
    "0",
    "1",
    "2",
    "16",
    "100000",
    "100001",
    "2147483648",
    "1e400",
    "nan",
    "1_0",
    "1\\2\\3",
    "x",
    "9" * 400,
)
TEXTS = (
    *COUNTS,
    "-1e38",
    "1e-320",
    "inf",
    "MONOCHROME1",
    "PALETTE COLOR",
    "YBR_FULL",
    "YBR_FULL_422",
    "RGB",
    "SIGMOID",
    "../..",
)
ROWS, COLUMNS, FRAMES, SAMPLES, ALLOCATED = 0x00280010, 0x00280011, 0x00280008, 0x00280002, 0x00280100
SHAPE = (ROWS, COLUMNS, FRAMES, SAMPLES, ALLOCATED, 0x00280006, 0x00280101, 0x00280102, 0x00280103)
LEAST = 16
"""So many bytes from the end of a codestream are more than its padding and its end marker."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file, and whether some of its pixels are known to be gone, so that it must give no example."""

    data: bytes
    short: bool = False


def cut(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """End the file at any byte."""
    data = seed.file()
    at = draw.randrange(len(data))
    # Of a deflated file each byte counts.
    end = len(data) if seed.deflated else len(seed.meta) + seed.pixels[-1].end
    return Damaged(data[:at], short=at < end)


def shorten(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """Take bytes from the end of the pixels or of a fragment, and mend the length."""
    pixels = [one for one in seed.pixels if one.end - one.value > LEAST]
    one = draw.choice(pixels[1:] or pixels) if seed.encapsulated else pixels[0]
    gone = draw.randrange(LEAST, one.end - one.value) & ~1
    body = bytearray(seed.body)
    del body[one.end - gone : one.end]
    _set_length(body, seed, one, one.end - one.value - gone)
    return Damaged(seed.file(bytes(body)), short=True)


def flip(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """Turn some bits over, half of the time in the header alone."""
    body = bytearray(seed.body)
    end = draw.choice((seed.pixels[0].value, len(body)))
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        body[draw.randrange(end)] ^= 1 << draw.randrange(8)
    return Damaged(seed.file(bytes(body)))


def flip_file(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """Turn some bits over anywhere in the file: in group 2, or in what is deflated."""
    data = bytearray(seed.file())
    for _ in range(draw.choice((1, 2, 4))):
        data[draw.randrange(draw.choice((len(seed.meta), len(data))))] ^= 1 << draw.randrange(8)
    return Damaged(bytes(data))


def overwrite(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """Write a run of bytes over what is there."""
    body, count = bytearray(seed.body), draw.choice((1, 2, 4, 8, 64, 512))
    at = draw.randrange(max(1, draw.choice((seed.pixels[0].value, len(body))) - count))
    body[at : at + count] = draw.choice((b"\0" * count, b"\xff" * count, draw.randbytes(count)))
    return Damaged(seed.file(bytes(body)))


def length(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """Give an element, an item or a fragment another length."""
    body, one = bytearray(seed.body), draw.choice((*seed.elements, *seed.pixels * 8))
    stated = one.end - one.value
    _set_length(
        body,
        seed,
        one,
        draw.choice((*NUMBERS, *HUGE, stated + 1, max(stated - 1, 0), stated + 2, max(stated - 2, 0))),
    )
    return Damaged(seed.file(bytes(body)))


def shape(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """Give the pixels another number of rows, columns, frames, samples or bits."""
    one = draw.choice([one for one in seed.elements if one.tag in SHAPE])
    if one.tag == FRAMES:
        return _text(seed, one, draw.choice(COUNTS).encode())
    body, number = bytearray(seed.body), draw.choice(NUMBERS)
    before = int.from_bytes(body[one.value : one.end], "little" if seed.order == "<" else "big")
    pack_into(f"{seed.order}H", body, one.value, number)
    # More rows than there are, of pixels that fill their bytes (but for one that pads to even).
    more = not seed.encapsulated and one.tag in (ROWS, COLUMNS) and number > before
    return Damaged(seed.file(bytes(body)), short=more)


def value(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """Write another value where a text or a number in digits stands."""
    texts = [
        one
        for one in seed.elements
        if one.vr in (b"DS", b"IS", b"CS", b"UI", b"LO", b"") and one.end > one.value
    ]
    return _text(seed, draw.choice(texts), draw.choice(TEXTS).encode())


def delete(draw: Random, seed: Seed, other: Seed) -> Damaged:
    one = draw.choice(seed.elements)
    return Damaged(seed.file(seed.body[: one.start] + seed.body[one.end :]))


def duplicate(draw: Random, seed: Seed, other: Seed) -> Damaged:
    one, place = draw.choice(seed.elements), draw.choice(seed.elements).start
    return Damaged(seed.file(seed.body[:place] + seed.body[one.start : one.end] + seed.body[place:]))


def swap(draw: Random, seed: Seed, other: Seed) -> Damaged:
    first, second = sorted(draw.sample(seed.elements, 2), key=lambda one: one.start)
    body = seed.body
    pieces = (body[: first.start], body[second.start : second.end], body[first.end : second.start])
    return Damaged(seed.file(b"".join((*pieces, body[first.start : first.end], body[second.end :]))))


def nest(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """Insert sequences in sequences, some of them never closed, some of no known VR."""
    depth, vr = draw.choice((1, 2, 30, 33, 100, 1000, 20000)), draw.choice((b"SQ", b"UN"))
    tag = draw.choice((0x00081140, 0x00091001, 0x52009230, 0x00283000))
    implicit = not any(one.vr for one in seed.elements)
    head = pack(f"{seed.order}HH", tag >> 16, tag & 0xFFFF) + (b"" if implicit else vr + b"\0\0")
    opened = head + b"\xff" * 4 + pack(f"{seed.order}HHI", ITEM >> 16, ITEM & 0xFFFF, UNDEFINED)
    end = pack(f"{seed.order}HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    closed = end * draw.choice((depth, depth, depth - 1, 0))
    place = draw.choice(seed.elements).start
    return Damaged(seed.file(seed.body[:place] + opened * depth + closed + seed.body[place:]))


def other_vr(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """Call an element another VR."""
    named = [one for one in seed.elements if one.vr]
    if not named:
        return flip(draw, seed, other)
    body, one = bytearray(seed.body), draw.choice(named)
    body[one.start + 4 : one.start + 6] = draw.choice((*sorted(SHORT | LONG), b"\0\0", b"??"))
    return Damaged(seed.file(bytes(body)))


def codestream(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """Change the head of a codestream, where it says how large it is and how it is made."""
    if not seed.encapsulated:
        return shape(draw, seed, other)
    body, one = (
        bytearray(seed.body),
        draw.choice([one for one in seed.pixels[1:] if one.end - one.value > LEAST]),
    )
    for _ in range(draw.choice((1, 1, 2, 3))):
        at, size = one.value + draw.randrange(min(200, one.end - one.value - 4)), draw.choice((1, 2, 4))
        number = draw.choice((*NUMBERS, *HUGE)) % 256**size
        body[at : at + size] = number.to_bytes(size, draw.choice(("big", "little")))
    return Damaged(seed.file(bytes(body)))


def grow(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """Claim another number of rows and columns in the header and in the codestreams alike."""
    body = bytearray(seed.body)
    places = [next(one for one in seed.elements if one.tag == tag).value for tag in (ROWS, COLUMNS)]
    before = [unpack_from(f"{seed.order}H", body, place)[0] for place in places]
    rows, columns = (
        draw.choice((1, number, number + 1, 1000, 4000, 9000, 20000, 65535)) for number in before
    )
    for place, number in zip(places, (rows, columns), strict=True):
        pack_into(f"{seed.order}H", body, place, number)
    claims = {
        pack(">HH", *before): pack(">HH", rows, columns),
        pack(">II", *before[::-1]): pack(">II", columns, rows),
    }
    for one in seed.pixels[1:] if seed.encapsulated else ():
        for stated, claim in claims.items():
            at = body.find(stated, one.value, min(one.end, one.value + 1000))
            if at >= 0:
                body[at : at + len(stated)] = claim
    more = rows * columns > before[0] * before[1] and not (seed.encapsulated and seed.syntax != RLELossless)
    return Damaged(seed.file(bytes(body)), short=more)


def splice(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """Begin as one file and go on as another, at elements or anywhere."""
    if draw.random() < 0.5:
        first, second = draw.choice(seed.elements).start, draw.choice(other.elements).start
    else:
        first, second = draw.randrange(len(seed.body)), draw.randrange(len(other.body))
    return Damaged(seed.file(seed.body[:first] + other.body[second:]))


def transplant(draw: Random, seed: Seed, other: Seed) -> Damaged:
    """Put the pixels of one file under the header of another, and leave the transfer syntax."""
    end = other.pixels[0].start
    pixels = seed.body[seed.pixels[0].start : seed.pixels[-1].end]
    head = seed if draw.random() < 0.5 else other
    return Damaged(head.file(other.body[:end] + pixels))


Mutation = Callable[[Random, Seed, Seed], Damaged]
MUTATIONS: Mapping[str, Mutation] = MappingProxyType(
    {
        one.__name__: one
        for one in (
            *(cut, shorten, flip, flip_file, overwrite, length, shape, value, delete, duplicate),
            *(swap, nest, other_vr, codestream, grow, splice, transplant),
        )
    }
)


def _set_length(body: bytearray, seed: Seed, one: Element, number: int) -> None:
    pack_into(
        f"{seed.order}{'H' if one.length_size == 2 else 'I'}",
        body,
        one.length_at,
        number % 256**one.length_size,
    )


def _text(seed: Seed, one: Element, value: bytes) -> Damaged:
    value += b" " * (len(value) % 2)
    body = bytearray(seed.body)
    body[one.value : one.end] = value
    _set_length(body, seed, one, len(value))
    return Damaged(seed.file(bytes(body)))
