"""The board as a browser, and as somebody who means ill, meets it: a real server on a free port."""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from diffnas.boards.serve import is_loopback, serve
from diffnas.cli.main import main
from diffnas.errors import RunError, UserError

from .conftest import EVIL, Make

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


Ask = Callable[..., Answer]


@contextmanager
def served(folder: Path, token: str | None = None) -> Iterator[Ask]:
    """Serves the board over `folder` and yields what asks it."""
    from diffnas.boards.app import make_app
    from diffnas.boards.library import Library

    library = Library(folder)
    library.refresh()
    server = uvicorn.Server(uvicorn.Config(make_app(library, token=token), log_level="error", access_log=False))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()

        def ask(path: str, method: str = "GET", **headers: str) -> Answer:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers={"Accept-Encoding": "identity", **named})
            answer = connection.getresponse()
            content = answer.read()
            found = {name.lower(): value for name, value in answer.getheaders()}
            connection.close()
            packed = found.get("content-encoding") == "gzip"
            return Answer(answer.status, found, (gzip.decompress(content) if packed else content).decode())

        ask.port = port  # type: ignore[attr-defined]
        yield ask
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def ask(make_run: Make, runs: Path) -> Iterator[Ask]:
    """Asks a board over two runs."""
    make_run("first")
    make_run("second")
    with served(runs) as asking:
        yield asking


def test_pages(ask: Ask) -> None:
    for path, said in (
        ("/", "2 of 2 runs"),
        ("/?q=first", "1 of 2 runs"),
        ("/run/first", "Curves of the search"),
        ("/compare?run=first&run=second", "2 runs"),
        ("/board.css", "--paper"),
        ("/board.js", "If-None-Match"),
        ("/favicon.svg", "<svg"),
    ):
        answer = ask(path)
        assert answer.status == 200 and said in answer.text, path
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers or "uvicorn" in answer.headers["server"]
        if answer.headers["content-type"].startswith("text/html"):
            assert answer.text.count("<script") == 1 and " style=" not in answer.text and "onclick" not in answer.text
    assert ask("/", Accept_Encoding="gzip").headers["content-encoding"] == "gzip"


def test_what_has_not_changed_is_not_sent_again(ask: Ask, make_run: Make) -> None:
    for path in ("/", "/run/first", "/compare?run=first"):
        tag = ask(path).headers["etag"]
        again = ask(path, If_None_Match=tag)
        assert (again.status, again.text) == (304, "")
        assert ask(path, If_None_Match='"other"').status == 200
    tag = ask("/").headers["etag"]
    make_run("third")
    until = time.monotonic() + 20
    while ask("/", If_None_Match=tag).status == 304 and time.monotonic() < until:
        time.sleep(0.05)
    assert "third" in ask("/").text


@pytest.mark.parametrize(
    "path",
    [
        "/run/..",
        "/run/../../etc/passwd",
        "/run/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/run/..%5c..",
        "/run/first/search/recipe.yaml",
        "/run//etc/passwd",
        "/../../../etc/passwd",
        "/static/../board.css",
        "/run/%00",
        "/run/first%00",
        "//evil.example/",
        "/run/~0000000000000000",
        f"/run/{'x' * 5000}",
    ],
)
def test_nothing_else_is_served(ask: Ask, path: str) -> None:
    answer = ask(path)
    assert answer.status == 404 and "root:" not in answer.text and "seed:" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_it_is_read_only(ask: Ask, method: str) -> None:
    assert ask("/", method).status == 405 and ask("/run/first", method).status == 405


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "", "127.0.0.1.nip.io"])
def test_other_hosts_are_refused(ask: Ask, host: str) -> None:
    answer = ask("/", Host=host)
    assert answer.status in (400, 421) and "first" not in answer.text
    assert ask("/board.js", Host=host).status in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1:8321", "LOCALHOST:1", "[::1]:8321", "[::1]"])
def test_names_of_this_machine(ask: Ask, host: str) -> None:
    assert ask("/", Host=host).status == 200


def test_a_run_in_a_folder_of_runs(make_run: Make, runs: Path) -> None:
    make_run("exp1/seed0")
    with served(runs) as ask:
        assert 'href="/run/exp1~seed0"' in ask("/").text
        assert "exp1/seed0" in ask("/run/exp1~seed0").text and ask("/run/exp1/seed0").status == 404


def test_a_token(make_run: Make, runs: Path) -> None:
    make_run("first")
    with served(runs, token="geheim") as ask:
        for answer in (ask("/"), ask("/board.js"), ask("/?token=other"), ask("/", Cookie="diffnas-board=other")):
            assert answer.status == 403 and "first" not in answer.text
        welcome = ask("/run/first?token=geheim&q=1", Host="machine.example")
        assert (welcome.status, welcome.headers["location"]) == (303, "/run/first?q=1")
        cookie = welcome.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        assert ask("//evil.example/?token=geheim").headers["location"] == "/evil.example/"
        assert ask("/run/first", Cookie=cookie.partition(";")[0], Host="machine.example").status == 200
        assert ask("/?token=%C3%A4").status == 403


def test_script_in_a_query(ask: Ask) -> None:
    from urllib.parse import quote

    for path in (f"/?q={quote(EVIL)}&state={quote(EVIL)}", f"/compare?run={quote(EVIL)}", f"/run/{quote(EVIL)}"):
        answer = ask(path)
        assert answer.text.count("<script") == 1 and "<img" not in answer.text


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("machine", False),
    ],
)
def test_who_can_reach_a_host(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_what_cannot_be_served_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="choose another, or --port 0"):
            serve(tmp_path, port=taken.getsockname()[1])
    with pytest.raises(UserError, match="--host no.such.host.invalid"):
        serve(tmp_path, host="no.such.host.invalid")
    with pytest.raises(RunError, match="is no folder"):
        serve(tmp_path / "nothing")
    assert main(["board", str(tmp_path / "nothing")]) == 2
    monkeypatch.setattr("diffnas.boards.serve.find_spec", lambda name: None)
    assert main(["board", str(tmp_path)]) == 2
    assert "pip install 'diffnas[board]'" in capsys.readouterr().err
