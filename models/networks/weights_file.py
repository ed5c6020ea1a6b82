"""Weights of a network in a safetensors file, whose header describes the network; torch is not needed to read that."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from imaging.errors import UserFault
from imaging.store.content_digest import digest_name

WEIGHTS_FILE = "weights.safetensors"
"""Of a training's run, beside the portable file, whose weights are folded into each other."""
NETWORK_NAME, CLASSES = "network", "classes"
"""Keys of the description; a file of other programs has neither."""
STORED = "weights:"
"""Beginning of the name by which a configuration names a file of the store: its digest follows."""
LONGEST_HEADER = 100 * 10**6
"""Bytes of a header at most, as the safetensors library has it."""


def stored_name(weights: str) -> str:
    """Return the name of an object of the store.

    >>> stored_name("weights:" + 64 * "a")[:16]
    'weights/aa/aaaaa'
    """
    return digest_name("weights", weights.removeprefix(STORED), ".safetensors")


def read_description(path: Path) -> dict[str, str]:
    """Return what the header of a file says of its network, nothing where another program wrote it.

    Raises UserFault where it is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length <= LONGEST_HEADER else None
    except OSError as error:
        raise UserFault(f"cannot read the weights {path}: {error.strerror}") from None
    except (struct.error, ValueError):
        header = None
    if not isinstance(header, dict):
        raise UserFault(
            f"{path} is no safetensors file: nothing else is read, because other files of weights can run code; "
            "convert it with safetensors.torch.save_file"
        )
    return {str(key): str(value) for key, value in (header.get("__metadata__") or {}).items()}


def check_network_of(description: Mapping[str, str], network: str, what: str) -> None:
    """Raise UserFault where a file describes another network."""
    if (other := description.get(NETWORK_NAME, network)) != network:
        raise UserFault(
            f"{what} holds the weights of the network {other!r}, and {network!r} is to be trained: set the network to "
            f"{other!r}, or give other weights"
        )
