"""What goes into a network and what comes out."""

import json

import pytest
import torch

from nas.errors import InvalidValue
from nas.signature import Signature


def test_a_signature_survives_json() -> None:
    one = Signature((13,), 3, categories=(4, 7))
    assert Signature.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert (one.rank, Signature((1, 28, 28), 10).rank, Signature((3, 150), 2).rank) == (0, 2, 1)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"input_shape": [], "outputs": 2}, "input_shape"),
        ({"input_shape": [1, 0], "outputs": 2}, "input_shape"),
        ({"input_shape": "28", "outputs": 2}, "input_shape"),
        ({"input_shape": [4], "outputs": 0}, "outputs"),
        ({"input_shape": [4], "outputs": True}, "outputs"),
        ({"input_shape": [4], "outputs": 2, "head": "both"}, "head"),
        ({"input_shape": [4], "outputs": 2, "categories": [0]}, "categories"),
        ({"input_shape": [4], "outputs": 2, "categories": [2] * 5}, "categories"),
        ({"input_shape": [1, 8, 8], "outputs": 2, "categories": [2]}, "categories"),
        ({"input_shape": [4], "outputs": 2, "head": "dense"}, "head"),
        ([], "signature"),
    ],
)
def test_what_is_no_signature_is_refused_by_name(values: object, key: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        Signature.from_json(values)
    assert raised.value.key == key


def test_an_example_has_the_shape_and_the_type_of_the_inputs() -> None:
    like = torch.zeros((), dtype=torch.float64)
    assert Signature((3, 4, 5), 2).example(2, like).dtype == torch.float64
    assert Signature((13,), 2, categories=(4,)).example(2).shape == (2, 13)
    assert Signature((7,), 20, "sequence", (20,)).example(1, like).dtype == torch.int64


def test_a_signature_is_told_in_words() -> None:
    assert Signature((1, 28, 28), 10).in_words() == "1x28x28 images with one prediction each"
    assert Signature((6, 100), 4, "dense").in_words() == "6x100 series with a prediction per place"
    assert Signature((13,), 2).in_words() == "rows of 13 numbers with one prediction each"
