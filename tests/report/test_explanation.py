"""The runner-up, margin, time and effect of every decision."""

import math

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import train_search
from nas.candidate import Architecture
from nas.data.batches import Batch
from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset
from nas.errors import UnusableInput
from nas.evaluation.shared_weights import relaxed_weights, supernet_metrics
from nas.interop.named_architecture import PUBLISHED
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.report.explanation import (
    decided_since,
    decisions,
    discretisation_gap,
    runner_ups,
    swap_effects,
)
from nas.report.measured_swaps import SwapSettings, measure_swaps
from nas.report.recorded_run import CONFIGURATION, RecordedRun
from nas.run.checkpoint import CheckpointFolder, read_checkpoint, write_checkpoint
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.tasks import PLAIN_CLASSIFICATION, Regression

LAYERS = [
    {"type": "conv", "filters": [2, 4], "kernel_size": [1, 3]},
    {"choose": [{"type": "conv", "filters": [2, 4], "kernel_size": 3}, {"type": "pool", "pool_size": 3, "stride": 1}]},
    {"type": "dense", "units": [4, 6]},
]
BOUND = {"signature": Signature((1, 6, 6), 3)}
SPACES = {
    "macro": lambda: Macro(LAYERS, ["relu", "tanh"], **BOUND),
    "darts": lambda: Darts(channels=2, cells=2, steps=2, multiplier=2, final_channels=2, final_cells=2, **BOUND),
    "nasbench201": lambda: NasBench201(channels=2, cells_per_stage=1, **BOUND),
}


def random_supernet(name):
    torch.manual_seed(3)
    space = SPACES[name]()
    supernet = space.supernet(Softmax(Temperature()))
    with torch.no_grad():
        for alpha in supernet.alpha.values():
            alpha.normal_(0, 2)
    return space, supernet


def batches(count=2):
    generator = torch.Generator().manual_seed(0)
    return [
        Batch(torch.randn(8, 1, 6, 6, generator=generator), torch.randint(3, (8,), generator=generator))
        for _ in range(count)
    ]


@pytest.mark.parametrize("name", SPACES)
def test_the_preferred_architecture_is_the_discretised_one(name):
    for _ in range(5):
        space, supernet = random_supernet(name)
        assert space.preferred(supernet.probabilities()) == supernet.discretise()


@pytest.mark.parametrize("name", SPACES)
def test_every_runner_up_is_an_architecture_of_the_space_that_differs_in_its_choice(name):
    space, supernet = random_supernet(name)
    found = supernet.discretise()
    for choice, other in runner_ups(space, found, supernet.probabilities()).items():
        other.architecture.check(space.choices)
        assert other.architecture[choice] != found[choice]
        assert -1 <= other.margin <= 1


def test_the_margin_is_the_lead_over_the_best_other_option():
    space, supernet = random_supernet("nasbench201")
    probabilities = supernet.probabilities()
    for choice, other in runner_ups(space, supernet.discretise(), probabilities).items():
        first, second = sorted(probabilities[choice].values(), reverse=True)[:2]
        assert other.margin == pytest.approx(first - second)
        assert probabilities[choice][other.option] == second


def test_the_runner_up_of_a_darts_input_is_the_strongest_edge_left_out():
    space = Darts(**BOUND)
    found = space.architecture(PUBLISHED["darts_v2"])
    operations = space.operations
    rows = {
        f"{cell}.node{node}.from{source}": dict.fromkeys(operations, 0.01)
        for cell in ("normal", "reduce")
        for node in range(2, 6)
        for source in range(node)
    }
    rows["normal.node4.from1"]["sep_conv_3x3"] = 0.5  # kept
    rows["normal.node4.from1"]["dil_conv_5x5"] = 0.4
    rows["normal.node4.from1"]["none"] = 0.9  # is no option of the found network
    rows["normal.node4.from2"]["sep_conv_5x5"] = 0.2
    rows["normal.node4.from3"]["max_pool_3x3"] = 0.3
    operation = space.runner_up("normal.node4.first.operation", found, rows)
    assert (operation.option, operation.margin) == ("dil_conv_5x5", pytest.approx(0.1))
    source = space.runner_up("normal.node4.first.input", found, rows)
    assert (source.option, source.margin) == ("3 (max_pool_3x3)", pytest.approx(0.2))
    assert source.architecture["normal.node4.first.input"] == "3"
    assert source.architecture["normal.node4.first.operation"] == "max_pool_3x3"
    assert space.runner_up("normal.node2.first.input", found, rows) is None  # both its states are in use


def test_it_does_not_matter_which_edge_of_a_darts_node_comes_first():
    space = Darts(**BOUND)
    found = space.architecture(PUBLISHED["darts_v2"])
    turned = dict(found)
    for part in ("input", "operation"):
        first, second = f"normal.node4.first.{part}", f"normal.node4.second.{part}"
        turned[first], turned[second] = turned[second], turned[first]
    other = Architecture("darts", turned)
    assert all(space.agree(choice.name, found, other) for choice in space.choices)
    changed = Architecture("darts", {**found, "normal.node4.first.operation": "max_pool_3x3"})
    assert not space.agree("normal.node4.first.operation", found, changed)
    assert space.agree("normal.node4.first.input", found, changed)


def test_a_choice_is_decided_from_its_last_change_on(run_folder):
    run = RecordedRun.read(run_folder())
    since = decided_since(run.found.space, run.found.candidate.architecture, run.probability_history())
    assert since == {"layer1.filters": 20, "layer2.kind": 40}


def test_decisions_tell_option_runner_up_margin_and_time(run_folder):
    filters, kind = decisions(RecordedRun.read(run_folder()))
    assert (filters.option, filters.runner_up, filters.decided) == ("16", "8", 20)
    assert filters.margin == pytest.approx(0.6)
    assert (kind.option, kind.runner_up, kind.margin, kind.decided) == ("max", "average", pytest.approx(0.8), 40)
    assert filters.effect is None


@pytest.mark.parametrize("name", SPACES)
def test_the_discretised_supernet_computes_the_network_with_its_weights(name):
    """Where weights can be inherited one to one, the stand-alone network has the same metrics."""
    space, supernet = random_supernet(name)
    found = supernet.discretise()
    if name == "darts":  # a pooling operation has a batch norm in the supernet only
        options = {key: "sep_conv_3x3" if key.endswith("operation") else value for key, value in found.items()}
        found = Architecture("darts", options)
    network = space.network(found)
    network.load_state_dict(supernet.inherited_state(found), strict=False)
    network.train()
    loss = correct = 0.0
    with torch.no_grad():
        for batch in batches():
            logits = network(batch.inputs)
            loss += float(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum"))
            correct += float((logits.argmax(1) == batch.targets).sum())
    gap = discretisation_gap(supernet, found, batches, PLAIN_CLASSIFICATION)
    assert gap["discretised"]["loss"] == pytest.approx(loss / 16, rel=1e-4)
    assert gap["discretised"]["accuracy"] == correct / 16


@pytest.mark.parametrize("name", SPACES)
def test_swaps_are_measured_with_everything_else_relaxed_and_leave_the_supernet_alone(name):
    space, supernet = random_supernet(name)
    before = {key: value.clone() for key, value in supernet.state_dict().items()}
    modes = [module.training for module in supernet.modules()]
    found = supernet.discretise()
    others = runner_ups(space, found, supernet.probabilities())
    effects = swap_effects(supernet, found, others, batches, PLAIN_CLASSIFICATION)
    assert effects.keys() == others.keys()
    for values in effects.values():
        difference = values["swapped"]["loss"] - values["option"]["loss"]
        assert values["loss_effect"] == difference
        assert math.isfinite(difference)
    assert any(abs(values["loss_effect"]) > 1e-4 for values in effects.values())
    assert all(torch.equal(before[key], value) for key, value in supernet.state_dict().items())
    assert modes == [module.training for module in supernet.modules()]
    assert "operation_weights" not in vars(supernet)


def test_swaps_and_the_gap_of_a_regression_are_in_its_measures():
    space = Macro([LAYERS[2]], ["relu"], signature=Signature((3,), 1))
    supernet = space.supernet(Softmax(Temperature()))
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(12, 3, generator=generator), 5 + 3 * torch.randn(12, generator=generator)
    part = ArrayDataset(inputs, targets)
    task, splits = Regression().fitted(DataSplits("rows", part, part, part, (0.0,) * 3, (1.0,) * 3))

    def rows():
        return [Batch(inputs, splits.train.targets)]

    found = supernet.discretise()
    gap = discretisation_gap(supernet, found, rows, task)
    others = runner_ups(space, found, supernet.probabilities())
    effects = swap_effects(supernet, found, others, rows, task)
    for one in gap["supernet"], gap["discretised"]:
        assert one["rmse"] == pytest.approx(one["loss"] ** 0.5 * float(task.deviation[0]), rel=1e-5)
        assert one["r2"] == pytest.approx(1 - one["loss"], rel=1e-5)  # the targets are those it is standardised by
    for values in effects.values():
        assert values["r2_effect"] == values["swapped"]["r2"] - values["option"]["r2"] != 0


def test_a_swap_is_the_relaxed_network_with_one_row_set():
    space, supernet = random_supernet("nasbench201")
    found = supernet.discretise()
    others = runner_ups(space, found, supernet.probabilities())
    choice = space.choices[3]
    effects = swap_effects(supernet, found, {choice.name: others[choice.name]}, batches, PLAIN_CLASSIFICATION)
    weights = relaxed_weights(supernet)["cell"].clone()
    weights[3] = 0
    weights[3, choice.options.index(others[choice.name].option)] = 1
    assert effects[choice.name]["swapped"] == supernet_metrics(supernet, batches(), {"cell": weights})


def recorded_search(folder, *overrides):
    sizes = "data.split={train:16,validation:16,test:16}"
    overrides = [*overrides, "data=digits", sizes, "training.batch_size=16", "search.epochs=1"]
    with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
        config = compose("train_search", [*overrides, "tracking.tensorboard=false", "tracking.console=quiet"])
    (folder / ".hydra").mkdir()
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    train_search.run(config, folder)


def measured_choices(folder):
    measure_swaps(folder, SwapSettings(images=16), say=lambda choice: None)
    made = decisions(RecordedRun.read(folder))
    measured = {one.choice for one in made if one.effect is not None}
    assert measured == {one.choice for one in made if one.runner_up is not None}
    return measured


def forget_space(folder):
    """Make the newest checkpoint one of before there was a space in it."""
    checkpoint = CheckpointFolder(folder / "checkpoints").files()[-1]
    state = read_checkpoint(checkpoint)
    del state["space"]
    write_checkpoint(checkpoint, state)


def test_the_choices_of_a_search_in_stages_are_measured_in_its_last_one(tmp_path):
    """Whose supernet is deeper than that of the configuration, with fewer options on every edge."""
    small = ("search.warmup_epochs=0", "space.channels=2", "space.stem_multiplier=1")
    recorded_search(tmp_path, "experiment=p_darts", "scale=small", *small)
    assert measured_choices(tmp_path)
    forget_space(tmp_path)
    with pytest.raises(UnusableInput, match="does not fit the space of the run: a search in stages has one of its own"):
        measured_choices(tmp_path)


def test_a_checkpoint_of_before_it_named_its_space_is_measured_in_that_of_the_run(tmp_path):
    recorded_search(tmp_path, "experiment=debug")
    assert (choices := measured_choices(tmp_path))
    before = (tmp_path / "explanation.json").read_bytes()
    forget_space(tmp_path)
    assert measured_choices(tmp_path) == choices
    assert (tmp_path / "explanation.json").read_bytes() == before
