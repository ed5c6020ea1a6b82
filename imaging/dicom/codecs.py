"""Owns the question whether this machine can decode a transfer syntax, asked before a file is blamed."""

from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import UID

from imaging.errors import DataFault, EnvironmentFault


def find_decoder(transfer_syntax: UID) -> Decoder:
    """Return the decoder of a transfer syntax.

    Raises DataFault "undecodable" where nobody has a decoder (a video, a private syntax), and
    EnvironmentFault where one exists and is not installed here.

    >>> find_decoder(UID("1.2.840.10008.1.2.1")).is_available
    True
    """
    try:
        decoder = get_decoder(transfer_syntax)
    except NotImplementedError:
        # What is no transfer syntax is not quoted: it may be any value that slipped into its place.
        known = transfer_syntax.is_transfer_syntax and not transfer_syntax.is_private
        name = transfer_syntax.name if known else "an unknown transfer syntax"
        raise DataFault("undecodable", f"no decoder exists for {name}") from None
    if not decoder.is_available:
        raise EnvironmentFault(
            f"no decoder is installed for {transfer_syntax.name} ({transfer_syntax}): "
            f"install one of {'; '.join(decoder.missing_dependencies)}"
        )
    return decoder
