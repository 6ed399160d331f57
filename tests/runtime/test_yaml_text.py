"""YAML as recipes have it: what is read, what is refused, and that what is written is read back."""

from __future__ import annotations

from typing import Any

import pytest

from diffnas.errors import RecipeError
from diffnas.runtime.yaml_text import parse_yaml, quote_value, to_flow_yaml, yaml_lines


def test_numbers_are_numbers_and_words_are_words() -> None:
    text = "{a: 1e-3, b: on, c: 010, d: 1:30, e: .5, f: 2, g: true, h: ~, i: no}"
    expected = {"a": 1e-3, "b": "on", "c": "010", "d": "1:30", "e": 0.5, "f": 2, "g": True, "h": None, "i": "no"}
    assert parse_yaml(text, "recipe") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x 1\nb: *x", r"aliases \(\*name\) are not supported"),
        ("a: 1\n3: 2", r"a key must be text; put it in quotes \(line 2\)"),
        ("b: {a: 1, c: 2, a: 3}", r"the key a stands twice \(line 1\)"),
        ("a: [1", r"expected .* \(line 1\)"),
        ("[" * 5000, "values are nested too deeply"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
    ],
)
def test_what_is_no_recipe_is_told_in_one_line(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=f"^mine: not valid YAML: .*{said}") as caught:
        parse_yaml(text, "mine")
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize(
    "value", ["on", "1e-3", "010", "a: b", "", "~", "two\nlines", "#", 0.001, 3, True, None, [1, "x"], {"a": [None]}]
)
def test_what_is_written_is_read_back(value: Any) -> None:
    text = to_flow_yaml(value)
    assert "\n" not in text and parse_yaml(text, "x") == value


def test_sections_are_blocks_and_leaves_say_where_they_come_from() -> None:
    tree = {"name": "x", "search": {"weights": {"lr": 0.1, "deep": {"er": {}}}, "epochs": 3}}
    lines = list(yaml_lines(tree, {"name": "a\n file", "search.epochs": "--set"}))
    assert lines == [
        "name: x  # a file",
        "search:",
        "  weights:",
        "    lr: 0.1  # default",
        "    deep: {er: {}}  # default",
        "  epochs: 3  # --set",
    ]
    assert parse_yaml("\n".join(lines), "x") == tree


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("word", "'word'"),
        ("x" * 100, "'" + "x" * 55 + " ..."),
        (3, "3"),
        ([], "[]"),
        ([[[[[1]]]]], "[[[['...']]]]"),
        ({"k" * 99: ("a", None)}, "{" + "k" * 55 + " ..."),
        (list(range(99)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 1 ..."),
    ],
)
def test_values_in_messages_are_short(value: Any, quoted: str) -> None:
    assert quote_value(value) == quoted
