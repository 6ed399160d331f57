"""Which network processes use; the system's own answers are made up where they differ from machine to machine."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from diffnas.runtime import network
from diffnas.runtime.launched import Place
from diffnas.runtime.network import CHOICE, address_of, address_towards, choose_network, interface_of


class Store:
    """What processes write to and read: another one has written already."""

    def __init__(self, **others: str) -> None:
        self.kept = {key.replace("_", "/"): value.encode() for key, value in others.items()}

    def set(self, key: str, value: str) -> None:
        self.kept[key] = value.encode()

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self.kept[key] for key in keys]


def test_this_machine_by_itself() -> None:
    assert address_of("127.0.0.1") == address_towards("127.0.0.1", 9) == "127.0.0.1"
    assert address_of("x" * 70) == address_towards("", 9) == interface_of("203.0.113.7") == ""


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces are asked on Linux")
def test_the_name_of_an_interface() -> None:
    assert interface_of("127.0.0.1") in [name for _, name in socket.if_nameindex()]


def test_a_name_that_means_the_machine_itself_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian gives a machine's own name the address 127.0.1.1; the others know a better one."""
    monkeypatch.setattr(network, "address_of", lambda host: "127.0.1.1")
    monkeypatch.setattr(network, "address_towards", lambda address, port: address)
    monkeypatch.setattr(network, "interface_of", {"10.0.0.1": "eth1"}.get)
    monkeypatch.setenv(CHOICE, "x")
    del os.environ[CHOICE]
    store = Store(first_1="10.0.0.1", own_1="10.0.0.2")
    assert choose_network(store, Place(0, 2, 0, "head", 29500)) == ["10.0.0.1", "10.0.0.2"]
    assert os.environ[CHOICE] == "eth1"


def test_what_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHOICE, "ib0")
    assert choose_network(Store(first_1="127.0.0.1", own_1="127.0.0.1"), Place(0, 2, 0, "127.0.0.1", 29500))
    assert os.environ[CHOICE] == "ib0"
