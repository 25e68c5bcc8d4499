"""A small language for conditions over features and the score, compiled to numpy. Nothing of it is ever evaluated as
Python.

    condition   or, and, not; comparisons == != < <= > >= between numbers; texts with == and !=
    membership  city in ['Bonn', 'Kiel'], grade not in [1, 2]
    missing     income is missing, income is not missing; a comparison with a missing value is false, also !=
    numbers     + - * / and parentheses; `score`, features by name, a name with other characters in backquotes

Columns have one value per row: float64 with NaN for missing, or objects with None for missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MAX_CHARACTERS = 2_000
MAX_DEPTH = 40
KEYWORDS = frozenset({"and", "or", "not", "in", "is", "missing"})

Column = npt.NDArray[Any]
Columns = Callable[[str], Column]
"""The column of a name."""
Evaluate = Callable[[Columns], Column]


class Kind(Enum):
    """What a part of an expression gives. A bare name is a number unless it is compared with a text."""

    NUMBER = "a number"
    TEXT = "a text"
    CONDITION = "a condition"
    NAME = "a name"


class ExpressionError(ValueError):
    """The text is not an expression; says where (characters from 1) and what was expected."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`numbers` and `texts`: the names that it reads, by what they must be."""

    numbers: frozenset[str]
    texts: frozenset[str]
    _evaluate: Evaluate

    def holds(self, columns: Columns) -> npt.NDArray[np.bool_]:
        """One truth per row."""
        with np.errstate(all="ignore"):
            truth: npt.NDArray[np.bool_] = np.asarray(self._evaluate(columns), dtype=np.bool_)
        return truth


def condition(text: str) -> Condition:
    """Raises ExpressionError."""
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"has {len(text)} characters, {MAX_CHARACTERS} are allowed")
    return _Parser(text).condition()


class _Token(NamedTuple):
    sort: str
    text: str
    at: int


class _Part(NamedTuple):
    kind: Kind
    evaluate: Evaluate
    name: str = ""
    token: _Token | None = None


_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<name>[^\W\d]\w*|`[^`]+`)|(?P<sign>==|!=|<=|>=|[-+*/()<>,\[\]])|(?P<wrong>\S))"
)
_COMPARE: dict[str, Callable[[Column, Column], Column]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
_SUM: dict[str, Callable[[Column, Column], Column]] = {"+": np.add, "-": np.subtract}
_PRODUCT: dict[str, Callable[[Column, Column], Column]] = {"*": np.multiply, "/": np.divide}


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text.rstrip()):
        sort = found.lastgroup or ""
        token = _Token(sort, found[sort], found.start(sort) + 1)
        if sort == "wrong":
            raise ExpressionError(f"character {token.at}: {token.text!r} means nothing here")
        yield token
    yield _Token("end", "the end", len(text) + 1)


class _Parser:
    """Recursive descent: or, and, not, comparison, sum, product, sign, value."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._position = 0
        self._depth = 0
        self._numbers: set[str] = set()
        self._texts: set[str] = set()

    def condition(self) -> Condition:
        whole = self._disjunction()
        if self._next.sort != "end":
            raise self._unexpected("the end")
        evaluate = self._as(whole, Kind.CONDITION)
        return Condition(frozenset(self._numbers), frozenset(self._texts), evaluate)

    @property
    def _next(self) -> _Token:
        return self._tokens[self._position]

    def _take(self, *texts: str) -> str:
        """The next token's text if it is one of these, and past it; "" otherwise."""
        token = self._next
        if token.sort in {"sign", "name"} and token.text in texts:
            self._position += 1
            return token.text
        return ""

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self._unexpected(repr(text))

    def _unexpected(self, wanted: str) -> ExpressionError:
        return ExpressionError(f"character {self._next.at}: expected {wanted}, found {self._next.text}")

    def _disjunction(self) -> _Part:
        return self._chain(self._conjunction, "or", np.logical_or)

    def _conjunction(self) -> _Part:
        return self._chain(self._negation, "and", np.logical_and)

    def _chain(self, inner: Callable[[], _Part], word: str, join: Callable[[Column, Column], Column]) -> _Part:
        left = inner()
        while self._take(word):
            one, other = self._as(left, Kind.CONDITION), self._as(inner(), Kind.CONDITION)
            left = _Part(Kind.CONDITION, _joined(join, one, other))
        return left

    def _negation(self) -> _Part:
        if not self._take("not"):
            return self._comparison()
        self._deeper()
        inner = self._as(self._negation(), Kind.CONDITION)
        self._depth -= 1
        return _Part(Kind.CONDITION, lambda columns: np.logical_not(inner(columns)))

    def _comparison(self) -> _Part:
        left = self._arithmetic()
        sign = self._take(*_COMPARE)
        if sign:
            return self._compared(sign, left, self._arithmetic())
        if self._take("is"):
            return self._missing(left)
        negated = bool(self._take("not"))
        if self._take("in"):
            return self._member(left, negated)
        if negated:
            raise self._unexpected("'in'")
        return left

    def _compared(self, sign: str, left: _Part, right: _Part) -> _Part:
        if Kind.TEXT in {left.kind, right.kind}:
            if sign not in {"==", "!="}:
                raise ExpressionError(f"texts are compared with == and != only, not with {sign}")
            one, other = self._as(left, Kind.TEXT), self._as(right, Kind.TEXT)
            return _Part(Kind.CONDITION, _text_comparison(one, other, equal=sign == "=="))
        one, other = self._as(left, Kind.NUMBER), self._as(right, Kind.NUMBER)
        return _Part(Kind.CONDITION, _number_comparison(_COMPARE[sign], one, other))

    def _missing(self, left: _Part) -> _Part:
        negated = bool(self._take("not"))
        self._expect("missing")
        if left.kind is not Kind.NAME:
            raise ExpressionError("only a feature can be missing")
        name = left.name
        self._numbers.discard(name)

        def evaluate(columns: Columns) -> Column:
            absent = _absent(columns(name))
            return np.logical_not(absent) if negated else absent

        return _Part(Kind.CONDITION, evaluate)

    def _member(self, left: _Part, negated: bool) -> _Part:
        self._expect("[")
        parts = [self._compared("==", left, self._arithmetic())]
        while self._take(","):
            parts.append(self._compared("==", left, self._arithmetic()))
        self._expect("]")
        found = parts[0].evaluate
        for part in parts[1:]:
            found = _joined(np.logical_or, found, part.evaluate)
        there = self._present(left)
        if not negated:
            return _Part(Kind.CONDITION, found)
        return _Part(Kind.CONDITION, lambda columns: np.logical_and(there(columns), np.logical_not(found(columns))))

    def _present(self, part: _Part) -> Evaluate:
        value = self._as(part, Kind.TEXT if part.name in self._texts else Kind.NUMBER)
        return lambda columns: np.logical_not(_absent(value(columns)))

    def _arithmetic(self) -> _Part:
        return self._operations(self._product, _SUM)

    def _product(self) -> _Part:
        return self._operations(self._signed, _PRODUCT)

    def _operations(self, inner: Callable[[], _Part], signs: dict[str, Callable[[Column, Column], Column]]) -> _Part:
        left = inner()
        while sign := self._take(*signs):
            one, other = self._as(left, Kind.NUMBER), self._as(inner(), Kind.NUMBER)
            left = _Part(Kind.NUMBER, _joined(signs[sign], one, other))
        return left

    def _signed(self) -> _Part:
        if not self._take("-"):
            return self._value()
        self._deeper()
        inner = self._as(self._signed(), Kind.NUMBER)
        self._depth -= 1
        return _Part(Kind.NUMBER, lambda columns: np.negative(inner(columns)))

    def _value(self) -> _Part:
        token = self._next
        if self._take("("):
            self._deeper()
            inner = self._disjunction()
            self._depth -= 1
            self._expect(")")
            return inner
        if token.sort in {"end", "sign"} or token.text in KEYWORDS:
            raise self._unexpected("a number, a text, a name or '('")
        self._position += 1
        if token.sort == "name":
            name = token.text.strip("`")
            return _Part(Kind.NAME, lambda columns: columns(name), name, token)
        if token.sort == "text":
            word = token.text[1:-1]
            return _Part(Kind.TEXT, lambda _: np.array(word, dtype=np.object_))
        number = float(token.text)
        return _Part(Kind.NUMBER, lambda _: np.array(number))

    def _as(self, part: _Part, wanted: Kind) -> Evaluate:
        """The part as what its place needs; a bare name becomes that."""
        if part.kind is Kind.NAME and wanted in {Kind.NUMBER, Kind.TEXT}:
            own, other = (self._numbers, self._texts) if wanted is Kind.NUMBER else (self._texts, self._numbers)
            if part.name in other:
                raise ExpressionError(f"{part.name!r} is used as a number and as a text")
            own.add(part.name)
        elif part.kind is not wanted:
            raise ExpressionError(
                f"character {self._next.at}: {wanted.value} is needed before this, not {part.kind.value}"
            )
        return part.evaluate

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"is nested deeper than {MAX_DEPTH}")


def _joined(join: Callable[[Column, Column], Column], one: Evaluate, other: Evaluate) -> Evaluate:
    return lambda columns: join(one(columns), other(columns))


def _number_comparison(compare: Callable[[Column, Column], Column], one: Evaluate, other: Evaluate) -> Evaluate:
    def evaluate(columns: Columns) -> Column:
        left, right = one(columns), other(columns)
        absent = _absent(left) | _absent(right)
        return np.logical_and(np.logical_not(absent), compare(left, right))

    return evaluate


def _text_comparison(one: Evaluate, other: Evaluate, *, equal: bool) -> Evaluate:
    def evaluate(columns: Columns) -> Column:
        left, right = one(columns), other(columns)
        same = np.asarray(left == right, dtype=np.bool_)
        if equal:
            return same
        return np.logical_not(_absent(left) | _absent(right) | same)

    return evaluate


def _absent(column: Column) -> Column:
    return np.isnan(column) if column.dtype.kind == "f" else np.asarray(column == np.array(None), dtype=np.bool_)
