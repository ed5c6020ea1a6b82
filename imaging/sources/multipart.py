"""Owns the one part of a multipart/related body (RFC 2387), with proof that it is whole.

dicomweb-client's decoder also takes a body that ends early, and hands over what there is.
"""

from email.message import Message

from imaging.errors import EnvironmentFault

LINE, BLANK = b"\r\n", b"\r\n\r\n"


def only_part(body: bytes, content_type: str) -> bytes:
    r"""Return the content of the single part; raise EnvironmentFault where the body is anything else.

    >>> only_part(b"--x\r\nContent-Type: a/b\r\n\r\nDICM\r\n--x--", 'multipart/related; boundary="x"')
    b'DICM'
    """
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == "application/dicom":
        return body
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/related" or not boundary:
        raise EnvironmentFault(
            f"the server sent {header.get_content_type()} where DICOM is asked for: check the address"
        )
    mark = b"--" + boundary.encode("ascii", "replace")
    begin, end = body.find(mark + LINE), body.rfind(LINE + mark + b"--")
    content = body.find(BLANK, begin)
    if begin < 0 or content < 0 or end < content + len(BLANK):
        raise EnvironmentFault(
            f"the server sent {len(body)} bytes without a whole part in them: run it again"
        )
    if body.find(LINE + mark + LINE, content, end) >= 0:
        raise EnvironmentFault("the server sent several parts where one is asked for: run it again")
    return body[content + len(BLANK) : end]
