"""Reference numbers of other seeds and sizes than the recorded ones, in tiny files that are made here."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.errors import UnusableInput
from nas.interop.original_state import to_original
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces.darts.space import Darts

Script = Callable[[str], ModuleType]
SIZES = {"channels": 2, "cells": 3, "steps": 2, "multiplier": 2, "stem_multiplier": 1}


def tiny(operations: Any, sizes: dict[str, int], batches: tuple[int, ...], **further: Any) -> dict[str, np.ndarray]:
    """What every file of a DARTS supernet has: weights, alphas, batches of images of 4x4 and the configuration."""
    torch.manual_seed(0)
    space = Darts(**sizes, operations=operations, signature=Signature((3, 4, 4), 2), **further.pop("settings", {}))
    supernet = space.supernet(Softmax(Temperature()))
    state = to_original(supernet, dict(supernet.named_parameters()))
    alphas = {name: state.pop(name) for name in list(state) if name.startswith("alphas_")}
    index = [[name, list(weight.shape)] for name, weight in state.items()]
    values = torch.cat([weight.detach().flatten() for weight in state.values()])
    content = {name: alpha.detach().double().numpy() for name, alpha in alphas.items()}
    content |= {"state_index": np.array(json.dumps(index)), "state_values": values.numpy()}
    content |= {"x": np.random.default_rng(0).normal(size=(*batches, 3, 4, 4)), "y": np.zeros(batches, dtype=np.int64)}
    return content | {"config": np.array(json.dumps({**sizes, "classes": 2, "operations": operations, **further}))}


@pytest.mark.parametrize("epochs", [50, 150])
def test_the_weight_of_beta_darts_grows_by_a_half_per_epoch_however_many_there_are(epochs: int, script: Script) -> None:
    alpha, loss = torch.tensor([[0.5, -1.0]], dtype=torch.float64), torch.tensor([[2.0, 1.0]], dtype=torch.float64)
    shares = alpha.softmax(-1)
    slope = shares * (loss - (shares * loss).sum())  # of the stand-in for the loss
    content = {
        "weight_schedule": 0.5 * np.arange(epochs),
        "epochs": np.array([7]),
        "row/alpha": alpha.numpy(),
        "row/stand_in_coefficients": loss.numpy(),
        "row/value": alpha.logsumexp(-1).mean().numpy(),
        "row/grad_alpha": shares.numpy(),
        "row/epoch7_grad_alpha": (slope + 3.5 * shares).numpy(),
    }
    file = script("replays.reference").ArrayFile(content)
    assert all(found.reached for found in script("replays.beta_darts").replay_beta_darts(file))


USUAL = "window 5, factor 1.3, first epoch 10, delta 4: an average counts for the middle of its window"
OTHER = "window 3, factor 1.5, first epoch 0, delta 1: an average counts for the middle of its window"


@pytest.mark.parametrize(
    ("rule", "values", "every", "epochs", "averages", "stops"),
    [
        (USUAL, [1.0, 2.0], 2, 50, [np.nan, np.nan], []),  # too few for any average
        (USUAL, [1.0, 2.0, 3.0, 4.0], 2, 50, [np.nan, np.nan, 2.0, 2.5], []),
        (USUAL, [1.0] * 12 + [9.0] * 4 + [12.0], 1, 17, [np.nan] * 2 + [1.0] * 10 + [2.6, 4.2, 5.8, 7.4, 10.0], []),
        (
            USUAL,
            [1.0] * 12 + [9.0] * 4 + [12.0],
            1,
            18,
            [np.nan] * 2 + [1.0] * 10 + [2.6, 4.2, 5.8, 7.4, 9.6],
            [16, 10],
        ),
        (OTHER, [1.0, 1.0, 1.0, 4.0], 2, 50, [np.nan, 1.0, 1.0, 2.0], [6, 2]),
    ],
    ids=["two", "four", "not in the last epoch", "before it", "another rule"],
)
def test_the_rule_of_robust_darts_is_followed_to_the_last_epoch(
    rule: str, values: list[float], every: int, epochs: int, averages: list[float], stops: list[int], script: Script
) -> None:
    half = 2 if rule == USUAL else 1
    rows = [[every * place, -1 if np.isnan(one) else every * (place - half), one] for place, one in enumerate(averages)]
    content = {
        "config": np.array(json.dumps({"rule": rule})),
        "rule/one/eigenvalues": np.array(values),
        "rule/one/every_epochs": np.array(every),
        "rule/one/total_epochs": np.array(epochs),
        "rule/one/log_epoch_averageepoch_average": np.array(rows),
        "rule/one/stopped_at_and_back_to": np.array(stops, dtype=np.int64),
    }
    replays = script("replays.robust_darts")
    found = list(replays.followed(script("replays.reference").ArrayFile(content), "rule/one/"))
    assert [one.quantity for one in found if not one.reached] == []


def test_a_file_may_lack_decays_of_the_auxiliary_skip(script: Script) -> None:
    file = script("replays.reference").ArrayFile({"schedule/linear": 1 - np.arange(20) / 20})
    comparisons = script("replays.darts_minus").replay_darts_minus(file)
    assert next(comparisons).reached
    with pytest.raises(UnusableInput, match="it has no entry x"):
        next(comparisons)


@pytest.mark.parametrize("halved", [False, True])
def test_the_edge_that_is_recorded_alone_is_that_of_the_second_cell_or_of_the_first_reduction_cell(
    halved: bool, script: Script
) -> None:
    sizes, names = {**SIZES, "cells": 8}, ["skip_connect", "sep_conv_3x3"]  # the third cell is the first one to halve
    settings = {"partial_channels": 2, "edge_normalisation": True}
    content = tiny(names, sizes, (2, 2), settings=settings, arch={}, k=2, search_steps=1)
    content = {("init/" if name.startswith("alphas") else "") + name: array for name, array in content.items()}
    for kind in ("normal", "reduce"):
        content[f"init/betas_{kind}"] = np.zeros(5)
        side = 2 if kind == "reduce" and halved else 4
        content[f"mixed_op/{kind}/input"] = np.ones((2, 4 if side == 2 else 2, 4, 4))
        content[f"mixed_op/{kind}/weights"] = np.array([0.5, 0.5])
        content[f"mixed_op/{kind}/output"] = np.zeros((2, 4 if side == 2 else 2, side, side))
    replays, reference = script("replays.pc_darts"), script("replays.reference")
    replay = replays.PartialReplay(reference.ArrayFile(content), "plain")
    supernet = replay.supernet()
    expected = supernet.get_submodule(f"cells.{2 if halved else 1}.edges.0")
    given = torch.from_numpy(content["mixed_op/reduce/input"])
    whole: Tensor = expected(given, torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64))
    content["mixed_op/reduce/output"] = whole.detach().numpy()
    again = replays.PartialReplay(reference.ArrayFile(content), "plain")
    assert [one.reached for one in again.edges_alone()] == [False, True]


def test_a_file_of_darts_pt_may_have_one_criterion(script: Script) -> None:
    names, criterion = ["skip_connect", "max_pool_3x3"], "loss"
    content = tiny(names, SIZES, (1, 2))
    edges = [["skip_connect", 0], ["skip_connect", 1], ["skip_connect", 0], ["skip_connect", 1]]
    genotype = {"normal": edges, "normal_concat": [2, 3], "reduce": edges, "reduce_concat": [2, 3]}
    order = {cell: {"edges": [0, 1, 2, 3, 4], "nodes": [3]} for cell in ("normal", "reduce")}
    steps = [{"kind": "operation", "accuracy_and_loss_without_each": [[0.0, 9.0]] * 2}] * 10
    steps += [{"kind": "edges", "node": 3, "accuracy_and_loss_without_each": [[0.0, 9.0]] * 3}] * 2
    kept = {cell: {str(edge): 0 for edge in range(5)} for cell in ("normal", "reduce")}
    recorded = {"order": order, "steps": steps, "operations": kept, "genotype": genotype}
    content |= {f"{criterion}/{name}": np.array(json.dumps(one)) for name, one in recorded.items()}
    content |= {"alpha_genotype": np.array(json.dumps(genotype)), "relaxed_accuracy_and_loss": np.zeros(2)}
    file = script("replays.reference").ArrayFile(content)
    quantities = [one.quantity for one in script("replays.darts_pt").replay_darts_pt(file)]
    assert {name.split("/")[1] for name in quantities if name.endswith("/numbers")} == {criterion}
    assert len(quantities) == 9


@pytest.mark.parametrize(("told", "last"), [("growing to epsilon 0.2", 0.2), ("growing", 0.3)])
def test_the_radius_of_sdarts_ends_where_its_file_says(told: str, last: float, script: Script) -> None:
    content = {"config": np.array(json.dumps({"epsilon": told}))}
    content |= {"epsilon_schedule": 0.03 + (last - 0.03) * np.arange(20) / 20}
    replay = script("replays.sdarts").replay_sdarts_random(script("replays.reference").ArrayFile(content))
    assert next(replay).reached


def test_what_drnas_has_pruned_does_not_come_back(script: Script) -> None:
    alpha = np.tile([0.5, -0.3, -0.2, -0.1, -0.9], (6, 1))
    first, second = ([True, True, True, True, False], [True, False, False, True, False])
    pruned = alpha * first  # its zero is above most of what is left of a row
    before = {0: alpha, 1: pruned, 2: alpha}  # the last one begins with all of alpha again
    content = {f"prune{stage}/alpha_before": one for stage, one in before.items()}
    content |= {f"prune{stage}/keep": np.array(keep) for stage, keep in enumerate((4, 2, 2))}
    given = script("replays.reference").ArrayFile(content)
    found = [kept.tolist() for _, _, kept in script("replays.drnas").pruned_stages(given)]
    assert found == [[row] * 6 for row in (first, second, second)]


def test_the_attack_may_come_with_the_gradient_of_any_weight(script: Script) -> None:
    content = tiny(["skip_connect", "sep_conv_3x3"], SIZES, (3,), pgd={"steps": 2})
    reference = script("replays.reference").ArrayFile(content)
    supernet = script("replays.packed_darts").searched_darts(reference, (3, 4, 4), Softmax(Temperature()))
    loss = torch.nn.functional.cross_entropy(supernet(reference.tensor("x")), reference.tensor("y"))
    edge = supernet.get_submodule("cells.1.edges.4")  # from a node of the reduction cell: there the skip has no weights
    weight = next(one for one in edge.parameters() if one.shape[-1] == 3)
    entry = "grad_weight/cells.1._ops.4._ops.1.op.1.weight"
    (gradient,) = torch.autograd.grad(loss, weight)
    given = {"epsilon": np.array(1e-13), entry: gradient.numpy(), "train_loss": loss.detach().numpy()}
    given |= {f"loss_{when}_eval_mode": np.zeros(()) for when in ("before", "after")}
    given |= {f"perturbed_{cell}": np.zeros((5, 2)) for cell in ("normal", "reduce")}
    given |= {"train_logits": np.zeros((3, 2))}
    content |= {f"case0/{name}": array for name, array in given.items()}
    replay = script("replays.sdarts").replay_sdarts_adversarial(script("replays.reference").ArrayFile(content))
    reached = {one.quantity for one in replay if one.reached}
    assert reached == {f"{way}/case0/{one}" for way in ("plain", "fast") for one in (entry, "train_loss")}


@pytest.mark.slow
def test_darts_pt_is_followed_in_cells_of_four_nodes(script: Script) -> None:
    names, sizes = ["skip_connect", "max_pool_3x3", "dil_conv_3x3"], {**SIZES, "steps": 4, "multiplier": 4}
    content = tiny(names, sizes, (2, 3))
    content["y"] = np.array([[0, 1, 0], [1, 1, 0]])
    packed, reference = script("replays.packed_darts"), script("replays.reference")
    file = reference.ArrayFile(content)
    supernet = packed.searched_darts(file, (3, 4, 4), Softmax(Temperature()))
    weights = {cell: alpha.detach().softmax(-1) for cell, alpha in supernet.alpha.items()}
    alphas = {cell: np.argmax(one.numpy(), 1) for cell, one in weights.items()}

    def measured(**other: Tensor) -> list[float]:
        logits = torch.cat([supernet(batch, {**weights, **other}) for batch in file.tensor("x")]).detach()
        labels = file.tensor("y").flatten()
        right = int((logits.argmax(-1) == labels).sum())
        return [100 * right / len(labels), float(torch.nn.functional.cross_entropy(logits, labels))]

    relaxed = measured()
    drawn = np.random.default_rng(0)
    order = {
        cell: {"edges": drawn.permutation(14).tolist(), "nodes": (3 + drawn.permutation(3)).tolist()}
        for cell in ("normal", "reduce")
    }
    steps: list[dict[str, Any]] = []
    chosen: dict[str, dict[str, int]] = {cell: {} for cell in order}
    for position in range(14):
        for cell, own in order.items():
            edge, numbers = own["edges"][position], []
            for place in range(3):
                without = weights[cell].clone()
                without[edge, place] = 0
                numbers.append(measured(**{cell: without}))
            best = max(range(3), key=lambda place: numbers[place][1])
            weights[cell] = weights[cell].clone()
            weights[cell][edge] = torch.eye(3, dtype=torch.float64)[best]
            chosen[cell][str(edge)] = best
            steps.append({"kind": "operation", "accuracy_and_loss_without_each": numbers})
    kept = {cell: {2: [0, 1]} for cell in order}
    for position in range(3):
        for cell, own in order.items():
            node, numbers = own["nodes"][position], []
            first = sum(range(2, node))
            for edge in range(first, first + node):
                without = weights[cell].clone()
                without[edge] = 0
                numbers.append(measured(**{cell: without}))
            left = sorted(sorted(range(node), key=lambda place: numbers[place][1])[-2:])
            kept[cell][node] = left
            weights[cell] = weights[cell].clone()
            weights[cell][[first + place for place in range(node) if place not in left]] = 0
            again = [numbers[place] for place in range(node)][: node - 1]  # what the original measures once more
            steps.append({"kind": "edges", "node": node, "accuracy_and_loss_without_each": numbers + again})
    genotype: dict[str, Any] = {}
    of_alpha: dict[str, Any] = {}
    for cell in order:
        genotype[cell], of_alpha[cell] = [], []
        shares = file.tensor(f"alphas_{cell}").softmax(-1).amax(-1)
        for node in range(2, 6):
            first = sum(range(2, node))
            genotype[cell] += [[names[chosen[cell][str(first + place)]], place] for place in kept[cell][node]]
            two = sorted(range(node), key=lambda place: -shares[first + place])[:2]
            of_alpha[cell] += [[names[alphas[cell][first + place]], place] for place in two]
        genotype[f"{cell}_concat"] = of_alpha[f"{cell}_concat"] = [2, 3, 4, 5]
    recorded = {"order": order, "steps": steps, "operations": chosen, "genotype": genotype}
    content |= {f"loss/{name}": np.array(json.dumps(one)) for name, one in recorded.items()}
    content |= {"alpha_genotype": np.array(json.dumps(of_alpha)), "relaxed_accuracy_and_loss": np.array(relaxed)}
    found = list(script("replays.darts_pt").replay_darts_pt(reference.ArrayFile(content)))
    assert [one.quantity for one in found if not one.reached] == []
    assert len(found) == 9


def test_operations_may_differ_from_edge_to_edge(script: Script) -> None:
    rows = [["skip_connect", "dil_conv_3x3"], ["max_pool_3x3", "skip_connect"]]
    content = tiny({"normal": rows, "reduce": rows[::-1]}, {**SIZES, "steps": 1, "multiplier": 1}, (2,))
    packed, reference = script("replays.packed_darts"), script("replays.reference")
    supernet = packed.searched_darts(reference.ArrayFile(content), (3, 4, 4), Softmax(Temperature()))
    assert dict(supernet.alpha_rows("reduce"))["reduce.node2.from0"] == ("max_pool_3x3", "skip_connect")


def test_cells_that_reduce_only_leave_the_other_alpha_without_a_gradient(script: Script) -> None:
    content = tiny(["skip_connect", "sep_conv_3x3"], {**SIZES, "cells": 2}, (2,))
    reference = script("replays.reference")
    zeros = {"normal": np.zeros((5, 2)), "reduce": np.zeros((5, 2))}
    for name in ("grad_cross_entropy", "l1/grad_total", "l1/grad_zero_one", "l2/grad_total", "l2/grad_zero_one"):
        content |= {f"{name}/alphas_{cell}": array for cell, array in zeros.items()}
    content |= {f"{norm}/{name}": np.zeros(()) for norm in ("l1", "l2") for name in ("zero_one_loss", "total_loss")}
    content |= {"l1/weight": np.ones(()), "l2/weight": np.ones(()), "cross_entropy": np.zeros(())}
    content["logits"] = np.zeros((2, 2))
    found = {one.quantity: one for one in script("replays.fair_darts").replay_fair_darts(reference.ArrayFile(content))}
    assert found["grad_cross_entropy/alphas_normal (fast)"].reached
    assert not found["grad_cross_entropy/alphas_reduce (fast)"].reached


def test_entries_that_do_not_fit_each_other_are_told_in_one_sentence(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"gradients/alphas": np.zeros((1, 2, 2)), "gradients/edges": np.zeros((1, 2))}
    content |= {"initial/alphas": np.ones((2, 2)) / 2, "initial/edges": np.ones(2) / 2}
    content |= {"after/alphas": np.ones((1, 2, 2)) / 2, "after/edges": np.ones((1, 2)) / 2}
    content = {f"{name}_{cell}": array for name, array in content.items() for cell in ("normal", "reduce")}
    configuration = {"method": "GAEA", "nodes": 1, "steps": 2, "lr": 0.1, "edge_lr": 0.1, "entropy_weight": 0.0}
    np.savez(tmp_path / "gaea.npz", config=np.array(json.dumps(configuration)), **content)
    assert script("check_reference").main([str(tmp_path / "gaea.npz")]) == 2
    told = capsys.readouterr().err
    assert "its replay stops with " in told
    assert ".py, line " in told
    assert "; its entries do not fit each other, or the replay has a mistake.\n" in told
    assert told.count("\n") == 1
