"""What is recorded of where and how a command ran."""

from __future__ import annotations

import pytest

from diffnas.pipeline.environment import _command


@pytest.mark.parametrize("program", ["/usr/bin/diffnas", "/site-packages/diffnas/__main__.py"])
def test_a_command_is_kept_as_one_would_type_it(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [program, "search", "darts-digits", "--note", "it's <b>new</b>"])
    assert _command() == """diffnas search darts-digits --note 'it'"'"'s <b>new</b>'"""
