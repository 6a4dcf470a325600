"""Building objects from settings, and the sentences about settings that cannot be used."""

import pickle
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from unittest.mock import patch

import pytest
from omegaconf import DictConfig, OmegaConf

from nas import bilevel, data, evaluation, hyperparameters, run, search, spaces
from nas.configuration import _resolve, assemble, build, described, matches, unknown_setting
from nas.errors import InvalidValue, require

CONF = Path(__file__).resolve().parents[1] / "conf"


@dataclass(frozen=True)
class Wheel:
    radius: float
    spokes: int = 8

    def __post_init__(self) -> None:
        require(self.radius > 0, "radius", self.radius, "it must be above 0")


@dataclass(frozen=True)
class Cart:
    wheel: Wheel
    colour: Literal["red", "blue"] = "red"
    load: float | None = None
    owner: str = ""


class Train:
    def __init__(self, carts: list[Any], doors: Mapping[str, Any], *, track: str) -> None:
        self.carts, self.doors, self.track = carts, doors, track


class Engine(Protocol):
    def power(self) -> float: ...


class Steam:
    def power(self) -> float:
        return 1.0


@dataclass(frozen=True)
class Locomotive:
    engine: Engine | None = None


class Rails:
    def __init__(self, *, gauge: float, **others: float) -> None:
        self.gauge, self.others = gauge, others


def ticket(price: float, *, currency: str) -> tuple[float, str]:
    return price, currency


NOT_CALLABLE = 5
HERE = __name__


def target(name: str, **settings: Any) -> dict[str, Any]:
    return {"_target_": f"{HERE}.{name}", **settings}


def complaint(config: Any, key: str = "thing", **arguments: Any) -> str:
    with pytest.raises(InvalidValue) as caught:
        build(OmegaConf.create(config) if isinstance(config, dict) else config, key, **arguments)
    return str(caught.value)


@pytest.mark.parametrize("wrap", [OmegaConf.create, dict], ids=["composed", "plain"])
def test_a_target_and_what_it_holds_are_made(wrap: Any) -> None:
    cart = build(wrap(target("Cart", wheel=target("Wheel", radius=2), colour="blue", load=3)), "cart")
    assert cart == Cart(Wheel(2.0), "blue", 3)
    assert type(cart.wheel.radius) is float


def test_targets_in_lists_and_groups_are_made_too() -> None:
    wheel = target("Wheel", radius=1.5)
    train = build(OmegaConf.create(target("Train", carts=[wheel, 3], doors={"left": wheel})), "train", track="north")
    assert train.carts == [Wheel(1.5), 3]
    assert train.doors == {"left": Wheel(1.5)}
    assert train.track == "north"


def test_a_function_can_be_a_target() -> None:
    assert build(OmegaConf.create(target("ticket", price=3)), "ticket", currency="EUR") == (3.0, "EUR")


def test_interpolations_are_resolved_from_the_whole_configuration() -> None:
    config = OmegaConf.create({"size": 4.5, "wheel": target("Wheel", radius="${size}")})
    assert build(config.wheel, "wheel") == Wheel(4.5)


def test_further_keywords_pass_where_the_constructor_takes_them() -> None:
    assert build(target("Rails", gauge=1, width=2.0), "rails").others == {"width": 2.0}
    assert complaint(target("Rails", gauge=1), "rails", gauge=2.0).startswith("rails.gauge=1 is not allowed: ")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (None, "thing=null is not allowed: it must be a group of settings with a _target_."),
        (7, "thing=7 is not allowed: it must be a group of settings with a _target_."),
        ({"radius": 1}, "thing={'radius': 1} is not allowed: it must be a group of settings with a _target_."),
        (target("Wheel"), "thing.radius=null is not allowed: thing needs it."),
        (
            target("Wheel", radius=1, spoke=3),
            "thing.spoke=3 is not allowed: thing knows radius, spokes (did you mean spokes?).",
        ),
        (target("Wheel", radius=1, xyz=3), "thing.xyz=3 is not allowed: thing knows radius, spokes."),
        (target("Wheel", radius=-1), "thing.radius=-1.0 is not allowed: it must be above 0."),
        (target("Wheel", radius=True), "thing.radius=true is not allowed: it must be a number."),
        (target("Wheel", radius="1"), "thing.radius=1 is not allowed: it must be a number."),
        (target("Wheel", radius=None), "thing.radius=null is not allowed: it must be a number."),
        (target("Wheel", radius=1, spokes=2.0), "thing.spokes=2.0 is not allowed: it must be a whole number."),
        (target("Wheel", radius=1, spokes=False), "thing.spokes=false is not allowed: it must be a whole number."),
        (
            target("Cart", wheel=target("Wheel", radius=0)),
            "thing.wheel.radius=0.0 is not allowed: it must be above 0.",
        ),
        (
            target("Cart", wheel=target("Wheel", radius=1, spok=1)),
            "thing.wheel.spok=1 is not allowed: thing.wheel knows radius, spokes (did you mean spokes?).",
        ),
        (
            target("Cart", wheel={"radius": 1}),
            "thing.wheel={'radius': 1} is not allowed: it must be a group with the _target_ of a Wheel.",
        ),
        (
            target("Cart", wheel=target("Wheel", radius=1), colour="green"),
            "thing.colour=green is not allowed: it must be one of red, blue.",
        ),
        (
            target("Cart", wheel=target("Wheel", radius=1), load="a"),
            "thing.load=a is not allowed: it must be a number or null.",
        ),
        (
            target("Train", carts=[1, target("Wheel", radius=0)], doors={}),
            "thing.carts[1].radius=0.0 is not allowed: it must be above 0.",
        ),
        (target("Train", carts="abc", doors={}), "thing.carts=abc is not allowed: it must be a list."),
        (target("Train", carts=[], doors=[1]), "thing.doors=[1] is not allowed: it must be a group of settings."),
        (
            target("Locomotive", engine={"power": 1}),
            "thing.engine={'power': 1} is not allowed: it must be a group with the _target_ of an Engine or null.",
        ),
        ({"_target_": 3}, "thing._target_=3 is not allowed: it must be the dotted path of a class or function."),
    ],
)
def test_one_sentence_names_key_value_and_what_is_allowed(config: Any, sentence: str) -> None:
    assert complaint(config) == sentence


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..x",
        "Wheel",
        "nas.nowhere.Thing",
        "nas.configuration.Nothing",
        "nas.bilevel.nowhere.Thing",
        "nas.nowhere.deeper.Thing",
        f"{HERE}.NOT_CALLABLE",
        f"{HERE}.Engine",
        "nas.spaces.space.SearchSpace",
        "builtins.dict",
    ],
)
def test_a_target_that_cannot_be_made_is_named(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    sentence = complaint({"_target_": path})
    assert sentence.startswith(f"thing._target_={path} is not allowed: it must be the dotted path of a class or func")
    assert capfd.readouterr() == ("", ""), "nothing else is printed on the way"


def test_a_mistake_in_a_module_of_ones_own_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slipped.py").write_text("import re\n\nclass Mine(re.Nothing):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sentence = complaint({"_target_": "slipped.Mine"})
    assert sentence.endswith(f"(module 're' has no attribute 'Nothing', {tmp_path / 'slipped.py'}, line 3).")
    # PyTorch raises in a module of its own
    (tmp_path / "stumbled.py").write_text("import torch\n\nclass Mine(torch.Nothing):\n    pass\n")
    assert complaint({"_target_": "stumbled.Mine"}).endswith(f"'Nothing', {tmp_path / 'stumbled.py'}, line 3).")


@pytest.mark.parametrize("path", ["math.pi", "nas.configuration.LONG_FORMS", "torch.Nothing"])
def test_no_line_is_told_of_a_mistake_in_no_module_of_ones_own(path: str) -> None:
    assert ", line" not in complaint({"_target_": path})


def test_annotations_for_type_checkers_alone_are_left_alone() -> None:
    def made(size: "Nowhere", many: int = 2) -> tuple[object, int]:  # type: ignore[name-defined]  # noqa: F821
        return size, many

    with patch.object(sys.modules[__name__], "ticket", made):
        assert build(target("ticket", size=3), "thing") == (3, 2)
        assert "thing.many=x is not allowed: it must be a whole number" in complaint(target("ticket", size=3, many="x"))


def test_what_an_abstract_class_lacks_is_named() -> None:
    assert complaint({"_target_": "nas.spaces.Supernet"}).endswith("this one is abstract: it lacks alpha_rows.")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nas.bilevel.conjugate_gradient.ConjugateGradient", bilevel.ConjugateGradient),
        ("nas.bilevel.updates.AdamUpdate", hyperparameters.AdamUpdate),
        ("nas.bilevel.upper_level.ArchitectureOptimiser", bilevel.Adam),
        ("nas.bilevel.ArchitectureOptimiser", bilevel.Adam),
        ("nas.bilevel.search_settings.SearchSettings", search.SearchSettings),
        ("nas.training.tracking.TrackingSettings", run.TrackingSettings),
        ("nas.data.mnist5k.Mnist5k", data.Mnist5k),
        ("nas.evaluation.fixed.Fixed", evaluation.Fixed),
        ("nas.spaces.darts.Darts", spaces.Darts),
    ],
)
def test_a_target_of_an_older_layout_is_found_where_it_is_today(old: str, new: object) -> None:
    assert _resolve(old, "thing._target_") is new


def test_what_the_program_supplies_cannot_be_set() -> None:
    sentence = complaint(target("Train", carts=[], doors={}, track="south"), track="north")
    assert sentence == "thing.track=south is not allowed: thing knows carts, doors."


def test_an_interpolation_that_leads_nowhere_is_named() -> None:
    config = OmegaConf.create({"wheel": target("Wheel", radius="${nowhere}")})
    assert complaint(config.wheel, "wheel") == (
        "wheel.radius=(unresolved) is not allowed: Interpolation key 'nowhere' not found."
    )


def test_a_value_that_has_to_be_given_is_named() -> None:
    sentence = complaint(target("Cart", wheel=target("Wheel", radius=1), owner="???"))
    assert "Missing mandatory value" in sentence
    assert "owner" in sentence


def test_a_number_too_large_for_a_float_is_refused() -> None:
    assert complaint(target("Wheel", radius=10**400)).endswith("it must be a number.")


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (Any, [None, 1, "x", []], []),
        (float, [1, 1.5, -(10**300)], [True, "1", None, [1.0], 10**400]),
        (int, [1, -3], [True, 1.0, "1", None]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "a"], [1, None, ["a"]]),
        (None, [None], [0, False, ""]),
        (Literal["a", 1], ["a", 1], [True, 1.0, "b", None]),
        (int | None, [1, None], [1.0, True]),
        (float | str, [1, 1.0, "a"], [None, True]),
        (list[int], [[], [1, 2]], [[1.0], [True], "12", 1, {"a": 1}]),
        (Sequence[str], [["a"], ("a", "b")], ["ab", [1]]),
        (Sequence[Sequence[int]], [[[1], []]], [[1], ["1"]]),
        (tuple[int, ...], [[], [1, 2, 3]], [[1, "2"], 1]),
        (tuple[float, str], [[1, "a"]], [[1], [1, "a", "a"], ["a", 1], []]),
        (Mapping[str, int], [{}, {"a": 1}], [{"a": "b"}, [1]]),
        (Wheel, [Wheel(1.0)], [1.0, None, {"radius": 1.0}]),
        (Engine, [Steam()], [1, "steam", None, [], {}, True]),
    ],
)
def test_types(hint: Any, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not matches(value, hint)] == []
    assert [value for value in bad if matches(value, hint)] == []


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int | None, "a whole number or null"),
        (Literal["a", True, 3], "one of a, true, 3"),
        (list[str], "a list (a text each)"),
        (Sequence[Any], "a list"),
        (tuple[float, ...], "a list (a number each)"),
        (tuple[float, bool], "a list of 2 (a number, true or false)"),
        (dict[str, int], "a group of settings"),
    ],
)
def test_types_in_words(hint: Any, words: str) -> None:
    assert described(hint) == words


def test_a_key_is_seen_from_further_up() -> None:
    assert InvalidValue("low", 1, "x").below("dropout").below("hyperparameters").key == "hyperparameters.dropout.low"
    assert InvalidValue("[2].type", 1, "x").below("layers").key == "layers[2].type"
    assert InvalidValue("", 1, "x").below("space.settings").key == "space.settings"
    assert InvalidValue("low", 1, "x").below("").key == "low"


def test_a_long_value_is_cut() -> None:
    sentence = str(InvalidValue("key", "v" * 10_000, "it must be short"))
    assert len(sentence) < 200
    assert sentence.endswith("... is not allowed: it must be short.")


def test_line_breaks_and_terminal_codes_are_shown_not_printed() -> None:
    assert str(InvalidValue("a\nb", "x\x1b[2J", "it must be plain")) == (
        r"'a\nb'='x\x1b[2J' is not allowed: it must be plain."
    )


def test_a_complaint_crosses_processes() -> None:
    original = InvalidValue("a.b", [1], "it must be 2")
    copy = pickle.loads(pickle.dumps(original))
    assert (str(copy), copy.key, copy.value, copy.allowed) == (str(original), "a.b", [1], "it must be 2")


class Loop:
    """Takes a part that the program has, and makes one itself."""

    def __init__(self, rule: Callable[..., Any], rounds: int, *, parts: int, budget: int) -> None:
        require(budget > 0, "budget.samples", budget, "it must be above 0")
        require(rounds > 0, "rounds", rounds, "it must be above 0")
        self.rule, self.budget = rule(parts=parts, budget=budget), budget


class Rule:
    def __init__(self, size: int, *, parts: int) -> None:
        require(size > 0, "size", size, "it must be above 0")
        self.size, self.parts = size, parts


def loop(size: object = 3, rounds: int = 1) -> dict[str, Any]:
    rule = {"_target_": f"{__name__}.Rule", "_partial_": True, "size": size}
    return {"_target_": f"{__name__}.Loop", "rule": rule, "rounds": rounds}


def test_parts_are_given_by_name_and_a_partial_is_made_by_its_owner() -> None:
    made = assemble(loop(), "method", {"parts": 5, "budget": 7, "unwanted": object()})
    assert (made.rule.size, made.rule.parts, made.budget) == (3, 5, 7)


@pytest.mark.parametrize(
    ("config", "budget", "key"),
    [
        (loop(size=0), 1, "method.rule.size"),
        (loop(size="x"), 1, "method.rule.size"),
        (loop(rounds=0), 1, "method.rounds"),
        (loop(), 0, "budget.samples"),  # a complaint about a part: its key is complete
        ({"rounds": 1}, 1, "method"),
    ],
)
def test_a_mistake_in_what_is_assembled_names_its_whole_key(config: dict[str, Any], budget: int, key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        assemble(config, "method", {"parts": 5, "budget": budget})
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("group", "setting", "sentence"),
    [
        (
            "data/mnist5k",
            "file",
            r"data knows augmentation, .*; it is a setting of data=arrays, table, text, time_series$",
        ),
        ("data/table", "folder", r"it is a setting of data=.*, images, .*text$"),
        ("task/regression", "ignore", r"task knows loss; it is a setting of task=auto, dense_classification$"),
        ("relaxation/softmax", "hard", r"it is a setting of relaxation=gumbel_softmax"),
        ("data/table.split", "file", r"data.split knows (?!.*setting of)"),
        ("data/table.csv", "target", r"data.csv knows (?!.*setting of)"),
        ("task/auto", "colour", r"task knows class_weights, ignore$"),
    ],
    ids=["file", "folder", "ignore", "hard", "split", "csv", "nobody"],
)
def test_a_setting_of_a_neighbour_is_told_as_such(group: str, setting: str, sentence: str) -> None:
    option, dot, part = group.partition(".")
    config = OmegaConf.load(CONF / f"{option}.yaml")
    config = OmegaConf.select(config, part) if part else config
    assert isinstance(config, DictConfig)
    allowed = unknown_setting(config, f"{group.partition('/')[0]}{dot}{part}", setting)
    assert allowed is not None
    assert re.search(sentence, allowed), allowed


def test_a_group_of_a_user_has_no_neighbours() -> None:
    of_a_user = OmegaConf.create({"_target_": f"{__name__}.Wheel", "radius": 1.0})
    assert unknown_setting(of_a_user, "wheels", "file") == "wheels knows radius"
