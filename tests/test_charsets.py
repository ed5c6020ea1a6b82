"""How text is decoded before anybody looks for names in it."""

import pytest

from imaging.deidentify.objects.charsets import decoder, terms_of


@pytest.mark.parametrize(
    ("terms", "raw", "text"),
    [
        ("", b"Doe^John ", "Doe^John"),
        ("ISO_IR 100", b"M\xfcller", "Müller"),
        ("ISO_IR 192", "山田".encode(), "山田"),
        ("GB18030", "王".encode("gb18030"), "王"),
        ("\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B", "山田"),
        ("\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8", "김"),
        ("ISO_IR 144", "Иванов".encode("iso8859_5"), "Иванов"),
    ],
)
def test_text_is_decoded(terms: str, raw: bytes, text: str) -> None:
    assert decoder(terms_of(terms.encode()))(raw) == text


@pytest.mark.parametrize(
    ("terms", "raw"),
    [
        ("", b"M\xfcller"),
        ("ISO_IR 6", b"M\xfcller"),
        ("ISO_IR 192", b"M\xfcller"),
        ("ISO_IR 999", b"M\xfcller"),
        ("Doe^John", b"M\xfcller"),
        ("ISO_IR 100", b"\x1b$B;3ED\x1b(B"),
        ("", b"D\0o\0e\0"),
        ("ISO_IR 100", b"\x9bDoe"),
    ],
)
def test_what_is_not_of_the_character_set_is_not_decoded(terms: str, raw: bytes) -> None:
    assert decoder(terms_of(terms.encode()))(raw) is None
