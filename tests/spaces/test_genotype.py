"""Genotypes refuse what is no cell."""

from typing import Any

import pytest

from nas.errors import InvalidValue
from nas.spaces.darts.genotype import LARGEST_STEPS, Genotype

VALID: dict[str, Any] = {
    "normal": [["sep_conv_3x3", 0], ["skip_connect", 1], ["max_pool_3x3", 2], ["none", 0]],
    "normal_concat": [2, 3],
    "reduce": [["conv_7x1_1x7", 1], ["conv_7x1_1x7", 1]],
    "reduce_concat": [2],
}


def test_fields_of_a_mapping() -> None:
    genotype = Genotype.from_mapping(VALID)
    assert genotype.normal == (("sep_conv_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 2), ("none", 0))
    assert genotype.reduce == (("conv_7x1_1x7", 1), ("conv_7x1_1x7", 1))
    assert genotype.normal_steps == 2
    assert genotype.operations() == ("sep_conv_3x3", "skip_connect", "max_pool_3x3", "none", "conv_7x1_1x7")
    assert hash(genotype) == hash(Genotype.from_mapping(VALID))


@pytest.mark.parametrize(
    ("field", "value", "key"),
    [
        ("normal", [], "normal"),
        ("normal", "sep_conv_3x3", "normal"),
        ("normal", [["sep_conv_3x3", 0]], "normal"),
        ("normal", [["sep_conv_3x3", 0]] * (2 * LARGEST_STEPS + 2), "normal"),
        ("normal", [["sep_conv_3x3", 0], ["sep_conv_4x4", 0]], "normal[1]"),
        ("normal", [["sep_conv_3x3", 0], ["sep_conv_3x3", 2]], "normal[1]"),
        ("normal", [["sep_conv_3x3", 0], ["sep_conv_3x3", -1]], "normal[1]"),
        ("normal", [["sep_conv_3x3", True], ["sep_conv_3x3", 0]], "normal[0]"),
        ("normal", [["sep_conv_3x3", 0.0], ["sep_conv_3x3", 0]], "normal[0]"),
        ("reduce", [["sep_conv_3x3"], ["sep_conv_3x3", 0]], "reduce[0]"),
        ("reduce", [[["sep_conv_3x3"], 0], ["sep_conv_3x3", 0]], "reduce[0]"),
        ("normal_concat", [], "normal_concat"),
        ("normal_concat", [2, 2], "normal_concat"),
        ("normal_concat", [1, 2], "normal_concat"),
        ("normal_concat", [4], "normal_concat"),
        ("reduce_concat", [2, 3], "reduce_concat"),
        ("reduce_concat", [2.0], "reduce_concat"),
        ("reduce_concat", 2, "reduce_concat"),
    ],
)
def test_impossible_cells_are_refused(field: str, value: object, key: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        Genotype.from_mapping(VALID | {field: value})
    assert refused.value.key == key


@pytest.mark.parametrize("values", [None, [], {}, VALID | {"more": 1}, {"normal": VALID["normal"]}])
def test_only_the_four_fields_are_taken(values: object) -> None:
    with pytest.raises(InvalidValue, match="genotype"):
        Genotype.from_mapping(values)
