"""The discretisation by options alone: what it takes, what it leaves alone, what it costs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

import train_search
from nas.candidate import Architecture
from nas.data.batches import Batch, first_images
from nas.errors import InvalidValue
from nas.evaluation.network_cost import supernet_multiply_adds
from nas.evaluation.shared_weights import supernet_metrics
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.search import discretisation
from nas.search.discretisation import Alone, Trained
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet

CONF = Path(__file__).resolve().parents[2] / "conf"
SPACES: dict[str, SearchSpace] = {
    "macro": Macro(
        [
            {"type": "conv", "filters": [2, 6], "kernel_size": [1, 3]},
            {"type": "conv", "filters": [4, 6], "kernel_size": 3, "optional": True},
            {"type": "dense", "units": [3, 12]},
        ],
        ["relu", "sigmoid"],
        signature=Signature((1, 6, 6), 4),
    ),
    "nasbench201": NasBench201(channels=4, cells_per_stage=1, signature=Signature((1, 8, 8), 4)),
}


class Images:
    """Validation images whose labels are what ``supernet`` makes of them as ``teacher``; counts what is handed out."""

    def __init__(self, supernet: Supernet, space: SearchSpace, teacher: Architecture, number: int = 60) -> None:
        images = torch.randn(number, *space.input_shape)
        weights = supernet.architecture_weights(teacher)
        with torch.no_grad():
            self.batch = Batch(images, supernet(images, weights).argmax(1))
        self.handed_out = 0

    def __call__(self, most: int) -> Iterator[Batch]:
        for batch in first_images([self.batch], most):
            self.handed_out += len(batch.targets)
            yield batch


def made(space: SearchSpace) -> tuple[Supernet, Architecture]:
    """A supernet, and the architecture that its alpha likes least: the strongest option is another everywhere."""
    torch.manual_seed(0)
    supernet = space.supernet(Softmax(Temperature()))
    supernet.train()
    generator = torch.Generator().manual_seed(1)
    teacher = space.sample(generator).architecture
    with torch.no_grad():
        for name, weights in supernet.architecture_weights(teacher).items():
            supernet.alpha[name].sub_(0.2 * weights)
        for parameter in supernet.get_submodule("classifier").parameters():
            parameter.mul_(100.0)  # sure of its answers, so that the teacher's loss is nearly zero
    return supernet, teacher


def loss(supernet: Supernet, architecture: Architecture, images: Images) -> float:
    weights = supernet.architecture_weights(architecture)
    return supernet_metrics(supernet, [images.batch], weights)["loss"]


@pytest.mark.parametrize("name", SPACES)
def test_a_lone_open_choice_takes_the_option_that_made_the_labels(name: str) -> None:
    space = SPACES[name]
    supernet, teacher = made(space)
    images = Images(supernet, space, teacher)
    open_choice = space.choices[0]
    with torch.no_grad():  # all the others are as good as decided
        for choice in space.choices[1:]:
            _push(supernet, choice.name, teacher[choice.name], 50.0)
    preferred = supernet.discretise()
    assert preferred[open_choice.name] != teacher[open_choice.name]
    found = Alone(1000).choose(Trained(supernet, space, images))
    # Not always the teacher: behind an edge without operation, others make no difference.
    assert loss(supernet, found, images) == pytest.approx(loss(supernet, teacher, images), abs=1e-6)
    assert loss(supernet, found, images) < loss(supernet, preferred, images) - 0.1


def _push(supernet: Supernet, decision: str, option: str, by: float) -> None:
    for name, alpha in supernet.alpha.items():
        for row, (found, options) in enumerate(supernet.alpha_rows(name)):
            if found == decision:
                alpha.view(-1, alpha.shape[-1])[row, options.index(option)] += by


@pytest.mark.parametrize("name", SPACES)
def test_the_choice_made_last_cannot_be_made_better(name: str) -> None:
    space = SPACES[name]
    supernet, teacher = made(space)
    images = Images(supernet, space, teacher)
    found = Alone(1000).choose(Trained(supernet, space, images))
    certainty = {choice: max(options.values()) for choice, options in supernet.probabilities().items()}
    last = min(space.choices, key=lambda choice: certainty[choice.name])
    others = [Architecture(space.name, {**found, last.name: option}) for option in last.options]
    assert loss(supernet, found, images) == min(loss(supernet, other, images) for other in others)
    assert found != supernet.discretise()


@pytest.mark.parametrize("name", SPACES)
def test_the_supernet_stays_as_it_was_and_the_cost_is_told(name: str) -> None:
    space = SPACES[name]
    supernet, teacher = made(space)
    images = Images(supernet, space, teacher)
    before = {key: entry.clone() for key, entry in supernet.state_dict().items()}
    Alone(25).choose(Trained(supernet, space, images))
    after: dict[str, Tensor] = supernet.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert supernet.training
    assert images.handed_out == Alone(25).images(space, 60)
    assert Alone(1000).images(space, 60) == 60 * sum(len(choice.options) for choice in space.choices)


def test_darts_cells_are_refused() -> None:
    space = Darts(channels=4, cells=2, signature=Signature((1, 8, 8), 3))
    with pytest.raises(InvalidValue, match="choices without an alpha of their own"):
        Alone(10).check(space.supernet(Softmax(Temperature())), space)


def configured(*overrides: str) -> DictConfig:
    small = [
        "experiment=[debug,exact]",
        "search.epochs=2",
        "tracking.console=quiet",
        "tracking.tensorboard=false",
        "device=cpu",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train_search", overrides=[*small, *overrides])


def test_a_search_takes_it_and_pays_for_it(tmp_path: Path) -> None:
    few = "data.split={train: 320, validation: 160, test: 64}"
    strongest, _, _ = train_search.search(configured(few), tmp_path / "strongest")
    result, found, parts = train_search.search(configured("discretisation=alone", few), tmp_path / "alone")
    splits = parts.splits
    images = Alone(500).images(found.space, len(splits.validation))
    assert result.cost.samples == strongest.cost.samples + images
    assert images > 0

    def batches(most: int) -> Iterator[Batch]:
        return first_images(splits.validation.evaluation_batches(256, splits.mean, splits.std), most)

    assert result.supernet is not None
    again = Alone(500).choose(Trained(result.supernet, found.space, batches))
    assert found.candidate.architecture == again
    resumed, unchanged, _ = train_search.search(configured("discretisation=alone", few), tmp_path / "alone")
    assert unchanged.candidate == found.candidate
    assert resumed.cost.samples == result.cost.samples


def test_a_small_budget_shrinks_its_images(tmp_path: Path) -> None:
    small = "budget.samples=5000"
    result, found, parts = train_search.search(configured("discretisation=alone", small), tmp_path / "small")
    splits = parts.splits
    strongest, _, _ = train_search.search(configured(small), tmp_path / "strongest")
    assert Alone(500).images(found.space, len(splits.validation)) > 5000
    assert result.cost.samples <= 5000
    assert 0 < strongest.step - result.step < strongest.step / 3  # the options took a quarter of the budget, at most


def test_without_the_budget_for_it_alpha_decides(tmp_path: Path) -> None:
    poor = "budget.samples=1500"  # enough to search, not enough for the fewest images per option
    result, found, _ = train_search.search(configured("discretisation=alone", poor), tmp_path / "poor")
    _, strongest, _ = train_search.search(configured(poor), tmp_path / "strongest")
    assert result.step > 0
    assert result.cost.samples <= 1500
    assert found.candidate == strongest.candidate


def test_alpha_decides_where_the_options_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discretisation, "supernet_metrics", lambda *_: {"loss": 1.0, "accuracy": 0.5})
    space = SPACES["macro"]
    supernet = space.supernet(Softmax(Temperature()))
    with torch.no_grad():
        for alpha in supernet.alpha.values():
            alpha.copy_(torch.randn(alpha.shape, generator=torch.Generator().manual_seed(3)))
    assert Alone(10).choose(Trained(supernet, space, lambda most: [])) == supernet.discretise()


TYPED = Macro(
    [
        {"type": "conv", "filters": [2, 4], "kernel_size": [1, 3]},
        {
            "choose": [
                {"type": "conv", "filters": [2, 3], "kernel_size": [1, 3], "stride": 2},
                {"type": "pool", "pool_size": [2, 3], "kind": ["max", "average"]},
            ]
        },
        {"type": "conv", "filters": [3, 4], "kernel_size": 3, "optional": True},
        {"type": "dense", "units": [3, 6]},
    ],
    ["relu"],
    signature=Signature((1, 6, 6), 4),
)


def test_types_are_chosen_first_and_what_they_switch_off_is_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    supernet, _ = made(TYPED)
    scored: list[str] = []  # of every pass the decision that has become one-hot since the last one
    chosen = {"layer2.type": "pool", "layer3.type": "skip"}
    with torch.no_grad():
        for decision, option in {**chosen, "layer1.filters": "4"}.items():
            _push(supernet, decision, option, 5.0 if decision == "layer1.filters" else 0.5)  # types are less sure
    decided: set[str] = set()

    def metrics(_: Supernet, batches: Iterator[Batch], weights: dict[str, Tensor], *__: object) -> dict[str, float]:
        one_hot = {name for name, own in weights.items() if own.max() == 1}
        scored.append(next(iter(one_hot - decided)).replace("-", "."))
        if scored.count(scored[-1]) == len(next(one for one in TYPED.choices if one.name == scored[-1]).options):
            decided.update(one_hot)
        return {"loss": 1.0}

    monkeypatch.setattr(discretisation, "supernet_metrics", metrics)
    found = Alone(10, types_first=True).choose(Trained(supernet, TYPED, lambda most: []))
    assert found == supernet.discretise()
    assert set(scored[:4]) == chosen.keys()
    assert set(scored[4:]) == {
        *("layer1.filters", "layer1.kernel_size", "layer2.pool.pool_size", "layer2.pool.kind", "layer4.units")
    }
    assert len(scored) <= Alone(10, types_first=True).images(TYPED, 10) / 10


def test_the_most_images_are_those_of_the_type_with_most_to_choose() -> None:
    count = Alone(10, types_first=True).images(TYPED, 1000)
    assert count == 10 * (2 + 2 + 2 + (2 + 2) + 2 + 2 + 2)  # two types; conv or pool; layer 3's filters if not skipped
    assert Alone(10).images(TYPED, 1000) == 10 * 2 * len(TYPED.choices)


@pytest.mark.parametrize("types_first", [False, True])
def test_slices_choose_what_the_whole_supernet_chooses_for_less(types_first: bool) -> None:
    supernet, teacher = made(TYPED)
    images, prices = Images(supernet, TYPED, teacher), []

    def noted(most: int, per_image: float | None = None) -> Iterator[Batch]:
        prices.append(per_image)
        return images(most)

    whole = Alone(50, types_first).choose(Trained(supernet, TYPED, noted))
    assert set(prices) == {None}
    prices.clear()
    assert Alone(50, types_first, sliced=True).choose(Trained(supernet, TYPED, noted)) == whole
    dearest = supernet_multiply_adds(TYPED, supernet.relaxation)
    assert all(0 < price <= dearest for price in prices)
    assert min(prices) < dearest / 2


def test_cells_cannot_be_sliced() -> None:
    space = SPACES["nasbench201"]
    with pytest.raises(InvalidValue, match="sliced=true is not allowed: its supernet cannot leave options out"):
        Alone(10, sliced=True).check(space.supernet(Softmax(Temperature())), space)
