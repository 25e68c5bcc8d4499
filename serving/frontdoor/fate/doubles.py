"""Numbers as texts, by the grammar of Java's Double.parseDouble, which FATE-Serving reads them with."""

from __future__ import annotations

import math
import re

_BLANKS = "".join(map(chr, range(ord(" ") + 1)))
_DECIMAL = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[fFdD]?")
_HEXADECIMAL = re.compile(r"([+-]?0[xX](?:[0-9a-fA-F]+\.?|[0-9a-fA-F]*\.[0-9a-fA-F]+)[pP][+-]?[0-9]+)[fFdD]?")
_SYMBOL = re.compile(r"([+-]?)(?:(Infinity)|[nN][aA][nN])")


def java_double(text: str) -> float | None:
    """None for what spells no number. Further than Java it takes NaN in any case."""
    stripped = text.strip(_BLANKS)
    decimal = _DECIMAL.fullmatch(stripped)
    if decimal is not None:
        return float(decimal[1])
    hexadecimal = _HEXADECIMAL.fullmatch(stripped)
    if hexadecimal is not None:
        return _from_hexadecimal(hexadecimal[1])
    symbol = _SYMBOL.fullmatch(stripped)
    if symbol is None:
        return None
    return math.nan if symbol[2] is None else math.copysign(math.inf, -1.0 if symbol[1] == "-" else 1.0)


def _from_hexadecimal(text: str) -> float:
    try:
        return float.fromhex(text)
    except OverflowError:
        return math.copysign(math.inf, -1.0 if text.startswith("-") else 1.0)
