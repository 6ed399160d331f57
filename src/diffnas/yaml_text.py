"""The YAML of recipes: read safely, written with where each value came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from diffnas.errors import RecipeError


class RecipeLoader(yaml.SafeLoader):
    """YAML in which `1e-3` is a number, `on` and `off` are words, and a key may not stand twice; no aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuses aliases, which a recipe has no use for."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuses a key that stands twice."""
        names = [key.value for key, _ in node.value]
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        if twice:
            raise yaml.YAMLError(f"the key {twice[0]} stands twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """The value of YAML `text`; raises `RecipeError` in one line that begins with `where`."""
    try:
        return yaml.load(text, RecipeLoader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise RecipeError(f"{where}: not valid YAML: {reason}{line}") from None


def yaml_lines(tree: Mapping[str, Any], origins: Mapping[str, str], at: str = "", indent: str = "") -> Iterator[str]:
    """The lines of nested values, sections as blocks and leaves in flow style, each with its origin as a comment."""
    for key, value in tree.items():
        dotted = f"{at}{key}"
        if isinstance(value, Mapping) and value and at.count(".") < 2:
            yield f"{indent}{key}:"
            yield from yaml_lines(value, origins, f"{dotted}.", indent + "  ")
        else:
            flow = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip().removesuffix("...").strip()
            yield f"{indent}{key}: {flow}  # {origins.get(dotted, 'default')}"
