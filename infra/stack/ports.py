"""Ports of the stack: those that a person gives, else those of the last `up`, else free ones."""

import json
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from infra.stack.processes import StackError

FILE = "ports.json"
FREE = range(20_000, 32_768)
"""Above the ports of Ray's workers, and below those that Linux lends to connections: free at the next `up` too."""
TRIES = 100


def choose_ports(
    wanted: Mapping[str, int | None],
    last: Mapping[str, int] | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, int]:
    """Return a port of the loopback interface for each name: the wanted one, or for None the last one or a free one.

    Raises StackError when a wanted port is taken; where the last one is, a line says which one comes in its place.
    """
    last, chosen = last or {}, dict[str, int]()
    # All sockets stay open until the last port is known, so that no two are the same.
    with ExitStack() as sockets:
        # Free ones come last: they shall not be those of others.
        for name in sorted(wanted, key=lambda name: not (wanted[name] or last.get(name))):
            before = last.get(name)
            if port := wanted[name]:
                listener = _given(name, port)
            else:
                listener = (_listener(before) if before else None) or _free()
            chosen[name] = sockets.enter_context(listener).getsockname()[1]
            if not port and before and chosen[name] != before:
                log(
                    f"port {before} of {name}, as at the last `up`, is taken by another program: {name} gets "
                    f"{chosen[name]} instead, and who uses its address needs the new one; to have the old one "
                    f"again, free it, then `radloop down` and `radloop up --{name}-port {before}`"
                )
    return chosen


def last_ports(home: Path) -> dict[str, int]:
    """Return the ports of the last `up`; empty where there was none."""
    # A damaged file is as good as none.
    with suppress(OSError, ValueError, AttributeError):
        content = json.loads((home / FILE).read_text())
        return {name: port for name, port in content.items() if isinstance(port, int) and 0 < port < 65_536}
    return {}


def keep_ports(home: Path, ports: Mapping[str, int]) -> None:
    """Write the ports for the next `up`, whole or not at all."""
    temporary = home / f"{FILE}.tmp"
    temporary.write_text(json.dumps(dict(ports)))
    temporary.replace(home / FILE)


def _given(name: str, port: int) -> socket.socket:
    if listener := _listener(port):
        return listener
    raise StackError(
        f"port {port} for {name} cannot be had, another program or another server of the stack has it: give "
        f"--{name}-port another one, or leave it out for the one of the last `up` or a free one"
    )


def _free() -> socket.socket:
    for _ in range(TRIES):
        if listener := _listener(secrets.choice(FREE)):
            return listener
    raise StackError(
        f"no port of {FREE.start} to {FREE.stop - 1} is free: give ports with --prefect-port and others"
    )


def _listener(port: int) -> socket.socket | None:
    listener = socket.socket()
    # The last server's connections may still be known to the kernel.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        # Else two could have the same one.
        listener.listen(1)
    except OSError:
        listener.close()
        return None
    return listener
