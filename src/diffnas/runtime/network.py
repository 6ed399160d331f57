"""Which of a machine's networks its processes use: the one on which the first machine is reached.

Left alone, gloo takes the address that the machine's own name stands for, which on many systems is 127.0.1.1: processes of
several machines then wait for one another in vain.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from typing import Any

from diffnas.runtime.launched import Place

CHOICE = "GLOO_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915  # the address of an interface, on Linux


def choose_network(store: Any, place: Place) -> list[str]:
    """Names to gloo the network that leads to the first machine, unless the user did; returns the addresses of all on it.

    `store` is what all processes write to and read.  The first machine itself may know its name as 127.0.1.1 only, so each
    process says which address it knows, and all take the first that others can reach.
    """
    known = _told(store, place, "first", address_of(place.host))
    first = next((each for each in known if each and not ipaddress.ip_address(each).is_loopback), known[0])
    own = address_towards(first, place.port)
    name = interface_of(own)
    if name:
        os.environ.setdefault(CHOICE, name)
    return _told(store, place, "own", own)


def address_of(host: str) -> str:
    """The IPv4 address of a machine; empty where it has none that is known here."""
    try:
        return socket.gethostbyname(host)
    except (OSError, UnicodeError):
        return ""


def address_towards(address: str, port: int) -> str:
    """This machine's own address on the network that leads to `address`; empty where none does.  Nothing is sent."""
    if not address:  # an empty one would stand for this machine
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, port))
            own: str = probe.getsockname()[0]
        except OSError:
            return ""
    return own


def interface_of(address: str) -> str:
    """The name of the interface that has `address`; empty where the system does not say (it is asked on Linux only)."""
    try:
        import fcntl

        names = [name for _, name in socket.if_nameindex()]
    except (ImportError, OSError, AttributeError):
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for name in names:
            try:
                found = fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has no address, or this is not Linux
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return ""


def _told(store: Any, place: Place, what: str, own: str) -> list[str]:
    """What all processes say, by rank."""
    store.set(f"{what}/{place.rank}", own)
    return [bytes(each).decode() for each in store.multi_get([f"{what}/{rank}" for rank in range(place.size)])]
