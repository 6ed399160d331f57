"""Values as Python, numpy and JSON print them, read without Python: nothing is evaluated, and depth is bounded.

A value is a number, a text in quotes, a bare word, a list, a tuple, a dictionary, or a call of one of the few names that
only dress values up (`range(2, 6)`, `np.int64(1)`, `array([...])`).  A `Genotype(...)` becomes a `Call`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

DEEPEST = 20
LONGEST_RANGE = 1000
LONGEST_NUMBER = 40

# within a value, the time and level that a log puts at the beginning of every line are no part of it
_STAMP = (
    r"[ \t]*\[?\d{2,4}[-/.]\d{1,2}(?:[-/.]\d{1,4})?[T ]+\d{1,2}:\d\d(?::\d\d)?(?:[.,]\d+)?Z?(?:[ ]?[AP]M)?\]?"
    r"(?:[ \t:|-]*\[?(?:DEBUG|INFO|WARNING|ERROR)\]?\b)?[ \t:|-]*"
)
_SPACE = re.compile(rf"(?:[^\S\n]+|#[^\n]*|\\\n|\n(?:{_STAMP})?)+")
_TOKEN = re.compile(
    r"(?P<number>[-+]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))"
    r"|(?P<text>[rbuRBU]?(?:\"(?:[^\"\\]|\\.){0,400}\"|'(?:[^'\\]|\\.){0,400}'))"
    r"|(?P<word>[A-Za-z_][\w.]*)"
    r"|(?P<mark>[][(){},:=])",
    re.ASCII | re.DOTALL,
)
_CLOSES = {"[": "]", "(": ")", "{": "}"}
_CONSTANTS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_GENOTYPE = re.compile(r"(?:[\w.]*\.)?(?:\w*[Gg]enotype\w*|Structure)")


class LiteralError(ValueError):
    """The text at `position` is not a value; the message says what was expected there."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position


class DepthError(LiteralError):
    """More values than anyone writes stand within one another."""


@dataclass(frozen=True)
class Call:
    """A `Genotype(...)` or `Structure(...)` as it stands in a text."""

    name: str
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)


def read_literal(text: str, start: int = 0) -> tuple[Any, int]:
    """The value that begins at `start` of `text`, and where it ends; raises `LiteralError` where there is none."""
    reader = _Reader(text, start)
    return reader.value(0), reader.at


class _Reader:
    """Reads one value; `at` is behind what has been read."""

    def __init__(self, text: str, at: int) -> None:
        self.text, self.at = text, at

    def value(self, depth: int) -> Any:
        kind, token = self._next()
        if depth > DEEPEST:
            raise DepthError(self.at - len(token), f"more than {DEEPEST} values stand within one another")
        if kind == "number":
            return self._number(token)
        if kind == "text":
            return re.sub(r"\s*\n\s*", "", token[token.index(token[-1]) + 1 : -1])  # a terminal's line end
        if token in ("[", "("):
            return self._sequence(token, depth)
        if token == "{":
            return self._mapping(depth)
        if kind == "word":
            return self._word(token, depth)
        raise self._expected("a value", token)

    def _sequence(self, opening: str, depth: int) -> Any:
        values: list[Any] = []
        while not self._closed(opening, "," if values else ""):
            values.append(self.value(depth + 1))
            if opening == "(" and len(values) == 1 and self._take(")"):
                return values[0]  # in brackets only
        return values if opening == "[" else tuple(values)

    def _mapping(self, depth: int) -> dict[Any, Any]:
        pairs: dict[Any, Any] = {}
        while not self._closed("{", "," if pairs else ""):
            start, key = self._skip(self.at), self.value(depth + 1)
            if not isinstance(key, str | int) or key in pairs:
                raise LiteralError(start, f"the key {key!r:.40} stands twice or is neither a text nor a number")
            self._require(":", f"':' after the key {key!r:.40}")
            pairs[key] = self.value(depth + 1)
        return pairs

    def _word(self, word: str, depth: int) -> Any:
        if not self._take("("):
            return _CONSTANTS.get(word, word)
        start = self.at
        arguments, keywords = self._arguments(depth)
        if _GENOTYPE.fullmatch(word):
            return Call(word, arguments, keywords)
        function = _FUNCTIONS.get(word.rpartition(".")[2])
        try:
            if function is dict:
                return dict(*arguments, **keywords)
            if function is None or set(keywords) - {"dtype", "device"}:
                raise ValueError
            return function(*arguments)
        except (TypeError, ValueError):
            raise LiteralError(start, f"{word[:40]}(...) is no value that is read here; nothing is computed") from None

    def _arguments(self, depth: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        arguments: list[Any] = []
        keywords: dict[str, Any] = {}
        while not self._closed("(", "," if arguments or keywords else ""):
            start = self.at
            kind, word = self._next()
            if kind == "word" and self._take("="):
                if word in keywords:
                    raise LiteralError(start, f"{word[:40]} stands twice")
                keywords[word] = self.value(depth + 1)
            elif keywords:
                raise self._expected("NAME=", word)
            else:
                self.at = start
                arguments.append(self.value(depth + 1))
        return tuple(arguments), keywords

    def _number(self, token: str) -> int | float:
        if len(token) > LONGEST_NUMBER:
            raise LiteralError(self.at - len(token), f"a number of {len(token)} characters")
        return int(token) if re.fullmatch(r"[-+]?\d+", token) else float(token)

    # -- tokens

    def _closed(self, opening: str, separator: str) -> bool:
        """Whether what `opening` began ends here; takes the separator before the next value."""
        closing = _CLOSES[opening]
        if self._take(closing):
            return True
        if separator:
            self._require(separator, f"{separator!r} or {closing!r}")
            return self._take(closing)
        return False

    def _require(self, token: str, said: str) -> None:
        if not self._take(token):
            start = self.at
            try:
                _, actual = self._next()
            except LiteralError as error:
                raise LiteralError(error.position, f"{said} was expected; {self._shown(error.position)}") from None
            self.at = start
            raise LiteralError(self._skip(start), f"{said} was expected; found {actual!r:.40}")

    def _expected(self, said: str, token: str) -> LiteralError:
        return LiteralError(self.at - len(token), f"{said} was expected; found {token!r:.40}")

    def _take(self, mark: str) -> bool:
        at = self._skip(self.at)
        if self.text.startswith(mark, at):
            self.at = at + len(mark)
            return True
        return False

    def _skip(self, at: int) -> int:
        space = _SPACE.match(self.text, at)
        return space.end() if space else at

    def _next(self) -> tuple[str, str]:
        """The kind of the next token and the token."""
        at = self._skip(self.at)
        token = _TOKEN.match(self.text, at)
        if token is None:
            raise LiteralError(at, f"a value was expected; {self._shown(at)}")
        self.at = token.end()
        return str(token.lastgroup), token[0]

    def _shown(self, at: int) -> str:
        rest = self.text[at : at + 20].split("\n")[0]
        return f"found {rest!r}" if self.text[at : at + 1].strip() else "the text ends"


def _range(*bounds: Any) -> list[int]:
    if not all(type(bound) is int and abs(bound) <= LONGEST_RANGE for bound in bounds) or bounds[2:] not in ((), (1,)):
        raise ValueError
    return list(range(*bounds))


def _listed(values: Any) -> list[Any]:
    if not isinstance(values, list | tuple):
        raise ValueError
    return list(values)


def _scalar(value: Any) -> Any:
    if not isinstance(value, int | float | str):
        raise ValueError
    return value


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "range": _range,
    "list": _listed,
    "tuple": lambda values: tuple(_listed(values)),
    "array": lambda values: values if isinstance(values, int | float) else _listed(values),
    "tensor": lambda values: values if isinstance(values, int | float) else _listed(values),
    "OrderedDict": dict,
    "dict": dict,
    **dict.fromkeys(("int", "int32", "int64", "float", "float16", "float32", "float64", "str", "str_"), _scalar),
}
"""What may be called: nothing here computes, and nothing is looked up."""
