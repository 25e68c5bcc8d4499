import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from serving.errors import InvalidRequestError
from serving.frontdoor.oip.tensors import BF16, BYTES, DTYPES, Tensor, from_raw, from_values, of_texts, texts, to_raw


@st.composite
def tensors(draw):
    datatype = draw(st.sampled_from(list(DTYPES)))
    shape = draw(nps.array_shapes(min_dims=1, max_dims=3, max_side=5))
    return Tensor("t", datatype, draw(nps.arrays(DTYPES[datatype], shape)))


@given(tensors())
def test_raw_there_and_back(tensor):
    back = from_raw("t", tensor.datatype, tensor.array.shape, to_raw(tensor))
    np.testing.assert_array_equal(back.array, tensor.array)


@given(tensors().filter(lambda tensor: tensor.datatype != "FP16"))
def test_values_there_and_back(tensor):
    back = from_values("t", tensor.datatype, tensor.array.shape, tensor.array.ravel().tolist())
    np.testing.assert_array_equal(back.array, tensor.array)


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=9))
def test_bytes_there_and_back(elements):
    tensor = from_values("t", BYTES, [len(elements), 1], elements)
    assert from_raw("t", BYTES, [len(elements), 1], to_raw(tensor)).array.ravel().tolist() == elements


@given(st.binary(max_size=40), st.lists(st.integers(-2, 4), max_size=3), st.sampled_from([*DTYPES, BF16, BYTES, "X"]))
def test_raw_garbage_is_refused_or_is_what_it_says(raw, shape, datatype):
    try:
        tensor = from_raw("t", datatype, shape, raw)
    except InvalidRequestError as error:
        assert "'t'" in str(error)
    else:
        assert list(tensor.array.shape) == shape


def test_bf16_is_the_upper_half_of_a_float():
    values = np.array([1.0, -2.5, 0.0], "<f4")
    raw = (values.view("<u4") >> 16).astype("<u2").tobytes()
    assert from_raw("t", BF16, [3], raw).array.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("datatype", "shape", "values", "said"),
    [
        ("FP64", [2], [1.0], "has 1 elements"),
        ("FP64", [], [1.0], "has shape"),
        ("FP64", [-1], [1.0], "has shape"),
        ("FP8", [1], [1.0], "datatype 'FP8'"),
        ("UINT8", [1], [300], "not UINT8"),
        ("INT32", [1], ["x"], "not INT32"),
        ("FP32", [1], [1e300], "not FP32"),
    ],
)
def test_wrong_values_are_named(datatype, shape, values, said):
    with pytest.raises(InvalidRequestError, match=said):
        from_values("t", datatype, shape, values)


def test_texts_are_utf_8():
    assert texts("t", of_texts("t", ["ü", ""]).array) == ["ü", ""]
    with pytest.raises(InvalidRequestError, match="'t' has bytes that are not UTF-8"):
        texts("t", from_values("t", BYTES, [1], [b"\xff"]).array)
