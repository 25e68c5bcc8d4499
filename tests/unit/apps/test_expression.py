import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.expression import MAX_CHARACTERS, MAX_DEPTH, ExpressionError, condition

NAN = math.nan
ROWS = {
    "age": np.array([17.0, 18.0, 70.0, NAN]),
    "income": np.array([0.0, 2500.0, NAN, 1.0]),
    "city": np.array(["Bonn", "Kiel", None, "Ulm"], dtype=object),
    "x[0]": np.array([1.0, 2.0, 3.0, 4.0]),
    "score": np.array([0.1, 0.5, 0.9, 0.5]),
}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("age < 18", [0]),
        ("age >= 18", [1, 2]),
        ("age != 18", [0, 2]),
        ("not age < 18", [1, 2, 3]),
        ("age is missing", [3]),
        ("age is not missing", [0, 1, 2]),
        ("city is missing", [2]),
        ("city == 'Bonn'", [0]),
        ('city != "Bonn"', [1, 3]),
        ("'Ulm' == city", [3]),
        ("city in ['Bonn', 'Ulm']", [0, 3]),
        ("city not in ['Bonn', 'Ulm']", [1]),
        ("age in [17, 70]", [0, 2]),
        ("age not in [17, 70]", [1]),
        ("age < 18 or age > 60 and income < 1", [0]),
        ("(age < 18 or age > 60) and score > 0.5", [2]),
        ("age < 18 or age > 60 or city == 'Ulm'", [0, 2, 3]),
        ("income / 2 + 1 > 1000 * 1.25", [1]),
        ("-income < -1e3", [1]),
        ("1 - 2 - 3 == -4", [0, 1, 2, 3]),
        ("2 + 3 * 4 == 14 and 8 / 2 / 2 == 2", [0, 1, 2, 3]),
        ("income / income == 1", [1, 3]),
        ("`x[0]` > 2", [2, 3]),
        ("score == 0.5", [1, 3]),
        ("not (age is missing or city == 'Bonn')", [1, 2]),
    ],
)
def test_conditions(text, rows):
    holds = np.broadcast_to(condition(text).holds(ROWS.__getitem__), (4,))
    assert np.flatnonzero(holds).tolist() == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "character 1: expected a number"),
        ("age", "a condition is needed before this, not a name"),
        ("1", "a condition is needed before this, not a number"),
        ("age <", "character 6: expected a number"),
        ("age < 18 and", "expected a number"),
        ("age < 'x'", "texts are compared with == and != only"),
        ("age == 'x' and age < 3", "'age' is used as a number and as a text"),
        ("(age < 18", r"expected '\)', found the end"),
        ("age < 18)", "expected the end"),
        ("age ! 18", "character 5: '!' means nothing here"),
        ("__import__('os')", "expected the end"),
        ("age.real < 3", "means nothing here"),
        ("age in []", "expected a number"),
        ("age not 3", "expected 'in'"),
        ("3 is missing", "only a feature can be missing"),
        ("age < 1 < 2", "expected the end"),
        ("(age < 1) + 2 > 3", "a number is needed"),
        ("'unclosed", "means nothing here"),
        ("(" * (MAX_DEPTH + 1) + "a<1" + ")" * (MAX_DEPTH + 1), "nested deeper"),
        ("not " * (MAX_DEPTH + 1) + "a<1", "nested deeper"),
        ("a<1 or " * MAX_CHARACTERS, "characters"),
    ],
)
def test_what_is_wrong_is_said(text, said):
    with pytest.raises(ExpressionError, match=said):
        condition(text)


def test_names_are_known_by_what_they_must_be():
    made = condition("age + income > 3 and city in ['a'] and zip is missing")
    assert (made.numbers, made.texts) == ({"age", "income"}, {"city"})


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_says_why_not(text):
    try:
        condition(text)
    except ExpressionError as error:
        assert str(error)


NUMBERS = st.integers(-9, 9).map(str) | st.sampled_from(["age", "income", "score"])
SUMS = st.recursive(
    NUMBERS, lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({''.join(t)})")
)
COMPARISONS = st.tuples(SUMS, st.sampled_from(["==", "<", "<=", ">", ">="]), SUMS).map(" ".join)
CONDITIONS = st.recursive(
    COMPARISONS,
    lambda inner: (
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map(lambda t: f"({''.join(t)})")
        | inner.map("not ({})".format)
    ),
    max_leaves=6,
)


@given(CONDITIONS, st.lists(st.tuples(*[st.integers(-5, 5)] * 3), min_size=1, max_size=4))
def test_it_means_what_python_means(text, rows):
    """Over whole numbers, without missing values, the language is a part of Python's."""
    columns = {
        name: np.array([row[i] for row in rows], dtype=float) for i, name in enumerate(("age", "income", "score"))
    }
    try:
        made = condition(text)
    except ExpressionError as error:
        assert "nested deeper" in str(error) or "characters" in str(error)
        return
    holds = np.broadcast_to(made.holds(columns.__getitem__), (len(rows),))
    for index in range(len(rows)):
        values = {name: column[index] for name, column in columns.items()}
        assert bool(holds[index]) == eval(text, {"__builtins__": {}}, values)
