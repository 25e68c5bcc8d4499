"""Java's Double.parseDouble."""

from __future__ import annotations

import math
import random

import pytest

from serving.frontdoor.fate.doubles import java_double


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1.0),
        ("-1.5e3", -1500.0),
        ("+.5", 0.5),
        ("5.", 5.0),
        ("1d", 1.0),
        ("1.1f", 1.1),
        ("2e1D", 20.0),
        ("2F", 2.0),
        (" 2 ", 2.0),
        ("\t2\x00\n", 2.0),
        ("0x1.8p1", 3.0),
        ("-0X.8P0f", -0.5),
        ("0x10p-2d", 4.0),
        ("0xp1", None),
        ("0x1p5000", math.inf),
        ("-0x1p5000", -math.inf),
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ("1e999", math.inf),
        ("0x1", None),
        ("0x1.8", None),
        ("inf", None),
        ("infinity", None),
        ("1_000", None),
        ("1,5", None),
        ("1 2", None),
        ("\u00a01", None),
        ("\u0661", None),
        ("d", None),
        (".", None),
        ("", None),
        (" ", None),
        ("1dd", None),
        ("1e", None),
        ("true", None),
    ],
)
def test_numbers_are_read_as_java_reads_them(text: str, number: float | None) -> None:
    assert java_double(text) == number


@pytest.mark.parametrize("text", ["NaN", "+NaN", "-NaN", " NaN ", "nan", "NAN"])
def test_nan_is_read_in_any_case(text: str) -> None:
    number = java_double(text)
    assert number is not None
    assert math.isnan(number)


def test_any_number_is_read_as_it_was_written() -> None:
    source = random.Random(0)
    for _ in range(1000):
        number = math.ldexp(source.uniform(-1, 1), source.randrange(-1070, 1020))
        suffix, blank = source.choice(["", "d", "f", "D", "F"]), source.choice(["", " ", "\t"])
        assert java_double(f"{blank}{number!r}{suffix}{blank}") == number
        assert java_double(f"{blank}{number.hex()}{suffix}{blank}") == number


@pytest.mark.parametrize(
    "text", ["1" * 1_000_000 + "x", "1" * 500_000 + "." + "1" * 500_000 + "x", "0x" + "1" * 1_000_000]
)
def test_a_long_text_that_is_none_is_found_out_in_one_go(text: str) -> None:
    """Looked at again for each of its digits it would take hours."""
    assert java_double(text) is None
