"""The declaration of the macro space: what is understood, and the sentence for everything that is not."""

import copy
from contextlib import suppress
from typing import Any

import pytest
from omegaconf import OmegaConf

from nas.configuration import build
from nas.errors import InvalidValue
from nas.signature import Signature
from nas.spaces.macro.layers import ConvLayer, DenseLayer, PoolLayer, parse_slots
from nas.spaces.macro.space import Macro

CONV = {"type": "conv", "filters": [8, 16], "kernel_size": [3, 5]}
POOL = {"type": "pool", "pool_size": [2, 3], "kind": ["max", "average"]}
DENSE = {"type": "dense", "units": [32]}
DEEP: list[Any] = []
for _ in range(400):
    DEEP = [DEEP]

KNOWN = "it must be one of conv, pool, global_pool, dense"
ODD = "it must be a list of one or more odd whole numbers from 1 to 99"
WIDTH = "it must be a list of one or more whole numbers from 1 to 65536"
FIRST = "the first layer cannot be skipped, unless it is a dense one"
DIFFERENT = "its options must differ from each other"
NAMES = "it must be a list of one or more of relu, sigmoid, tanh, gelu, silu, elu, softplus"


def with_(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**base, **changes}


def without(base: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in base.items() if name != key}


def test_every_kind_of_slot_is_understood() -> None:
    slots = parse_slots(
        [
            {"type": "conv", "filters": 4, "kernel_size": 3},
            {"type": "pool", "pool_size": 2},
            {"type": "pool", "pool_size": [3, 5], "kind": "average", "stride": 1, "optional": True},
            {"choose": [with_(CONV, stride=2, activations=["tanh"]), POOL, with_(CONV, stride=2)]},
            {"choose": [CONV], "optional": True},
            {"type": "dense", "units": [3, 5], "optional": True, "activations": "elu"},
        ],
        ["relu", "sigmoid"],
    )
    both = ("relu", "sigmoid")
    assert [slot.layers for slot in slots] == [
        (ConvLayer((4,), (3,), 1, both),),
        (PoolLayer((2,), ("max",), 2),),
        (PoolLayer((3, 5), ("average",), 1),),
        (
            ConvLayer((8, 16), (3, 5), 2, ("tanh",)),
            PoolLayer((2, 3), ("max", "average"), 2),
            ConvLayer((8, 16), (3, 5), 2, both),
        ),
        (ConvLayer((8, 16), (3, 5), 1, both),),
        (DenseLayer((3, 5), ("elu",)),),
    ]
    assert [slot.optional for slot in slots] == [False, False, True, False, True, True]
    assert [slot.types for slot in slots][2:5] == [("pool", "skip"), ("conv", "pool", "conv_2"), ("conv", "skip")]


@pytest.mark.parametrize(
    ("layers", "key", "value", "allowed"),
    [
        # the list itself
        (None, "layers", "null", "it must be a list of layers"),
        ("conv", "layers", "conv", "it must be a list of layers"),
        (b"conv", "layers", "b'conv'", "it must be a list of layers"),
        ({"type": "conv"}, "layers", "{'type': 'conv'}", "it must be a list of layers"),
        (7, "layers", "7", "it must be a list of layers"),
        ([], "layers", "[]", "it must have 1 to 1000 layers"),
        ([None], "layers[0]", "null", "a layer must be a group of settings with a type, or choose"),
        ([CONV, "pool"], "layers[1]", "pool", "a layer must be a group of settings with a type, or choose"),
        ([CONV, [POOL]], "layers[1]", str([POOL]), "a layer must be a group of settings with a type, or choose"),
        # types and keys
        ([{}], "layers[0].type", "null", "it must be one of conv, pool, global_pool, dense"),
        (
            [with_(CONV, type="convolution")],
            "layers[0].type",
            "convolution",
            "it must be one of conv, pool, global_pool, dense",
        ),
        (
            [with_(CONV, type=["conv"])],
            "layers[0].type",
            "['conv']",
            "it must be one of conv, pool, global_pool, dense",
        ),
        ([with_(CONV, type=True)], "layers[0].type", "true", "it must be one of conv, pool, global_pool, dense"),
        (
            [with_(CONV, filter=3)],
            "layers[0].filter",
            "3",
            "it knows activations, dilation, filters, kernel_size, optional, stride, type",
        ),
        ([CONV, with_(POOL, units=3)], "layers[1].units", "3", "it knows kind, optional, pool_size, stride, type"),
        ([with_(DENSE, stride=1)], "layers[0].stride", "1", "it knows activations, optional, type, units"),
        ([with_(CONV, **{"choose": [CONV]})], "layers[0].type", "conv", "it knows choose, optional"),
        # numbers
        ([without(CONV, "filters")], "layers[0].filters", "null", WIDTH),
        ([with_(CONV, filters=[])], "layers[0].filters", "[]", WIDTH),
        ([with_(CONV, filters=[16, "a"])], "layers[0].filters", "[16, 'a']", WIDTH),
        ([with_(CONV, filters="16")], "layers[0].filters", "16", WIDTH),
        ([with_(CONV, filters=b"ab")], "layers[0].filters", "b'ab'", WIDTH),
        ([with_(CONV, filters=True)], "layers[0].filters", "true", WIDTH),
        ([with_(CONV, filters=[True, 2])], "layers[0].filters", "[True, 2]", WIDTH),
        ([with_(CONV, filters=[16.0])], "layers[0].filters", "[16.0]", WIDTH),
        ([with_(CONV, filters=16.5)], "layers[0].filters", "16.5", WIDTH),
        ([with_(CONV, filters=[float("nan")])], "layers[0].filters", "[nan]", WIDTH),
        ([with_(CONV, filters=[0])], "layers[0].filters", "[0]", WIDTH),
        ([with_(CONV, filters=-8)], "layers[0].filters", "[-8]", WIDTH),
        ([with_(CONV, filters=[65_537])], "layers[0].filters", "[65537]", WIDTH),
        ([with_(CONV, filters=[10**30])], "layers[0].filters", f"[{10**30}]", WIDTH),
        ([with_(CONV, filters=[[16]])], "layers[0].filters", "[[16]]", WIDTH),
        ([with_(CONV, filters={16: 32})], "layers[0].filters", "{16: 32}", WIDTH),
        ([with_(CONV, filters=[None])], "layers[0].filters", "[None]", WIDTH),
        ([with_(CONV, filters=[8, 16, 8])], "layers[0].filters", "[8, 16, 8]", DIFFERENT),
        ([with_(CONV, kernel_size=[3, 4])], "layers[0].kernel_size", "[3, 4]", ODD),
        ([with_(CONV, kernel_size=2)], "layers[0].kernel_size", "[2]", ODD),
        ([with_(CONV, kernel_size=101)], "layers[0].kernel_size", "[101]", ODD),
        ([with_(CONV, kernel_size=[3, 3])], "layers[0].kernel_size", "[3, 3]", DIFFERENT),
        ([CONV, with_(DENSE, units=["many"])], "layers[1].units", "['many']", WIDTH),
        (
            [CONV, with_(POOL, pool_size=[2, 200])],
            "layers[1].pool_size",
            "[2, 200]",
            "it must be a list of one or more whole numbers from 1 to 99",
        ),
        ([CONV, with_(POOL, stride=1)], "layers[1].pool_size", "[2, 3]", ODD),
        ([with_(CONV, stride=3)], "layers[0].stride", "3", "it must be 1 or 2"),
        ([with_(CONV, stride=True)], "layers[0].stride", "true", "it must be 1 or 2"),
        ([with_(CONV, stride=1.0)], "layers[0].stride", "1.0", "it must be 1 or 2"),
        ([with_(CONV, stride=[1])], "layers[0].stride", "[1]", "it must be 1 or 2"),
        # names
        ([CONV, with_(POOL, kind=[])], "layers[1].kind", "[]", "it must be a list of one or more of max, average"),
        (
            [CONV, with_(POOL, kind="min")],
            "layers[1].kind",
            "['min']",
            "it must be a list of one or more of max, average",
        ),
        ([CONV, with_(POOL, kind=3)], "layers[1].kind", "3", "it must be a list of one or more of max, average"),
        ([CONV, with_(POOL, kind=["max", "max"])], "layers[1].kind", "['max', 'max']", DIFFERENT),
        ([with_(CONV, activations=["relu6"])], "layers[0].activations", "['relu6']", NAMES),
        ([with_(CONV, activations=[])], "layers[0].activations", "[]", NAMES),
        ([with_(CONV, activations=None)], "layers[0].activations", "null", NAMES),
        ([with_(CONV, activations=[["relu"]])], "layers[0].activations", "[['relu']]", NAMES),
        ([with_(DENSE, activations={"relu": 1})], "layers[0].activations", "{'relu': 1}", NAMES),
        # optional
        ([with_(CONV, optional=True)], "layers[0].optional", "true", FIRST),
        ([{"choose": [CONV], "optional": True}], "layers[0].optional", "true", FIRST),
        ([CONV, with_(CONV, optional=1)], "layers[1].optional", "1", "it must be true or false"),
        ([CONV, with_(CONV, optional="yes")], "layers[1].optional", "yes", "it must be true or false"),
        ([CONV, with_(CONV, optional=None)], "layers[1].optional", "null", "it must be true or false"),
        (
            [CONV, with_(CONV, optional=True, stride=2)],
            "layers[1].optional",
            "true",
            "only stride 1 can be skipped, it has 2",
        ),
        ([CONV, with_(POOL, optional=True)], "layers[1].optional", "true", "only stride 1 can be skipped, it has 2"),
        # choose
        ([{"choose": []}], "layers[0].choose", "[]", "it must be a list of 1 to 100 layers"),
        ([{"choose": "conv"}], "layers[0].choose", "conv", "it must be a list of 1 to 100 layers"),
        ([{"choose": CONV}], "layers[0].choose", str(CONV), "it must be a list of 1 to 100 layers"),
        ([{"choose": [CONV, 3]}], "layers[0].choose[1]", "3", "a layer must be a group of settings with a type"),
        (
            [{"choose": [{"choose": [CONV]}]}],
            "layers[0].choose[0].type",
            "null",
            "it must be one of conv, pool, global_pool, dense",
        ),
        ([{"choose": [with_(CONV, filters=[])]}], "layers[0].choose[0].filters", "[]", WIDTH),
        (
            [CONV, {"choose": [CONV, with_(CONV, optional=True)]}],
            "layers[1].choose[1].optional",
            "true",
            "say layers[1].optional=true for the whole slot",
        ),
        (
            [{"choose": [CONV, POOL]}],
            "layers[0].choose",
            "['conv', 'pool']",
            "all must have one stride, these have [1, 2]",
        ),
        (
            [{"choose": [CONV, DENSE]}],
            "layers[0].choose",
            "['conv', 'dense']",
            "dense layers cannot be mixed with convolution or pooling",
        ),
        # the order of the chain
        ([DENSE, CONV], "layers[1].type", "conv", "no convolution or pooling can follow a dense layer"),
        ([CONV, DENSE, DENSE, POOL], "layers[3].type", "pool", "no convolution or pooling can follow a dense layer"),
        (
            [DENSE, {"choose": [CONV, with_(POOL, stride=1, pool_size=3)], "optional": True}],
            "layers[1].choose",
            "conv, pool",
            "no convolution or pooling can follow a dense layer",
        ),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(layers: Any, key: str, value: str, allowed: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_slots(layers, ["relu"])
    shown = value if len(value) <= 120 else value[:117] + "..."
    assert str(caught.value) == f"{key}={shown} is not allowed: {allowed}."


@pytest.mark.parametrize("activations", [None, [], "swish", 3, ["relu", 1], ["relu", "relu"], {"relu": 1}])
def test_the_default_activations_are_checked(activations: Any) -> None:
    with pytest.raises(InvalidValue, match=r"^activations="):
        Macro([CONV], activations, signature=Signature((1, 8, 8), 10))


def test_too_many_layers_or_options() -> None:
    for layers in ([CONV] * 1001, [with_(CONV, filters=list(range(1, 102)))], [{"choose": [CONV] * 101}]):
        with pytest.raises(InvalidValue):
            parse_slots(layers, ["relu"])


@pytest.mark.parametrize("junk", [None, True, 0, -1, 1.5, float("inf"), 10**400, "", "x", b"x", [], {}, DEEP, [None]])
def test_junk_anywhere_is_refused_or_understood_but_never_a_crash(junk: Any) -> None:
    layers = [CONV, {"choose": [with_(CONV, stride=2), with_(POOL, stride=2)], "optional": False}, DENSE]

    def paths(value: Any, path: tuple[Any, ...] = ()) -> Any:
        yield path
        if isinstance(value, dict | list):
            for name in value if isinstance(value, dict) else range(len(value)):
                yield from paths(value[name], (*path, name))

    refused = 0
    for path in list(paths(layers))[1:]:
        broken = copy.deepcopy(layers)
        place: Any = broken
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = junk
        with suppress(InvalidValue):
            parse_slots(broken, ["relu"])
            continue
        refused += 1
    assert refused > 15


def test_the_key_starts_at_the_space_in_a_configuration() -> None:
    config = OmegaConf.create(
        {"_target_": "nas.spaces.Macro", "layers": [with_(CONV, kernel_size=[4])], "activations": ["relu"]}
    )
    with pytest.raises(InvalidValue) as caught:
        build(config, "space", signature=Signature((1, 8, 8), 10))
    assert str(caught.value) == f"space.layers[0].kernel_size=[4] is not allowed: {ODD}."
