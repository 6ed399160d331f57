"""The YAML of recipes: read safely, written with where each value came from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import yaml

from diffnas.errors import RecipeError


class RecipeLoader(yaml.SafeLoader):
    """YAML in which `1e-3` is a number, `on`, `off`, `010` and `1:30` are words, keys are text, and none stands twice.

    There are no aliases and no merge keys.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuses aliases, which a recipe has no use for."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuses a key that is not text, or that stands twice."""
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.YAMLError(f"a key must be text; put it in quotes (line {key.start_mark.line + 1})")
        twice = [name for name, count in Counter(key.value for key, _ in node.value).items() if count > 1]
        if twice:
            raise yaml.YAMLError(f"the key {twice[0]} stands twice (line {node.start_mark.line + 1})")
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


class RecipeDumper(yaml.SafeDumper):
    """Quotes whatever `RecipeLoader` would not read back as text."""


PLAIN_VALUES = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": (r"true|True|false|False", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
}
"""What is not text when it stands without quotes: its pattern and first characters."""
for kind in (RecipeLoader, RecipeDumper):
    kind.yaml_implicit_resolvers = {}
    for tag, (pattern, first) in PLAIN_VALUES.items():
        starts = [*first, ""] if tag == "null" else [*first]
        kind.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), starts)


def parse_yaml(text: str, where: str) -> Any:
    """Parses YAML `text`; raises `RecipeError` in one line that begins with `where`."""
    try:
        return yaml.load(text, RecipeLoader)  # noqa: S506 (a SafeLoader)
    except RecursionError:
        raise RecipeError(f"{where}: not valid YAML: values are nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise RecipeError(f"{where}: not valid YAML: {reason}{line}") from None


def yaml_lines(tree: Mapping[str, Any], origins: Mapping[str, str], at: str = "", indent: str = "") -> Iterator[str]:
    """Yields the lines of nested values: sections as blocks, leaves in flow style with their origins as comments."""
    for key, value in tree.items():
        dotted = f"{at}{key}"
        if isinstance(value, Mapping) and value and at.count(".") < 2:
            yield f"{indent}{key}:"
            yield from yaml_lines(value, origins, f"{dotted}.", indent + "  ")
        else:
            origin = " ".join(origins.get(dotted, "default").split())
            yield f"{indent}{key}: {to_flow_yaml(value)}  # {origin}"


def to_flow_yaml(value: Any) -> str:
    """Formats `value` as YAML on one line."""
    style = '"' if isinstance(value, str) and len(value.splitlines()) > 1 else None
    text = yaml.dump(value, Dumper=RecipeDumper, default_style=style, default_flow_style=True, width=10**9)
    return str(text).strip().removesuffix("...").strip()


def quote_value(value: Any) -> str:
    """Formats `value` for a message: short, with text in quotes."""
    text = repr(value[:60]) if isinstance(value, str) else to_flow_yaml(_beginning(value))
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _beginning(value: Any, depth: int = 4) -> Any:
    """Returns as much of `value` as fits into a message: it may be as large as its file."""
    if isinstance(value, str):
        return value[:60]
    if not value or not isinstance(value, Mapping | list | tuple):
        return value
    if not depth:
        return "..."
    if isinstance(value, Mapping):
        return {str(key)[:60]: _beginning(item, depth - 1) for key, item in islice(value.items(), 30)}
    return [_beginning(item, depth - 1) for item in value[:30]]
