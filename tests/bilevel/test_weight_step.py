"""The weight step is torch.optim.SGD's, and the unrolled step is the weight step."""

import pytest
import torch
import torch.nn.functional as F

from nas.bilevel.problem import BilevelProblem

ACTIVE, INACTIVE = 0.1, 1e3


@pytest.mark.parametrize("clip", [None, ACTIVE, INACTIVE])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_it_is_the_step_of_torchs_sgd(momentum, clip, make_problem, make_supernet, make_batch):
    problem = make_problem(momentum=momentum, clip=clip, relaxation="gumbel")
    supernet, _ = make_supernet("gumbel", torch.float64, True)
    weights = supernet.weight_parameters()
    optimiser = torch.optim.SGD(weights, lr=1.0, momentum=momentum, weight_decay=0.03)
    for number, factor in enumerate((1.0, 0.8, 0.3)):
        batch = make_batch(number)
        problem.schedule_factor = factor
        step = problem.step(batch)

        supernet.dropout.rate = torch.tensor(0.3, dtype=torch.float64)  # learned: a relaxed mask
        optimiser.param_groups[0]["lr"] = 0.05 * factor
        optimiser.zero_grad()
        expected_logits = supernet(batch.inputs)
        expected_loss = F.cross_entropy(expected_logits, batch.targets)
        expected_loss.backward()
        expected_norm = torch.nn.utils.clip_grad_norm_(weights, torch.inf if clip is None else clip)
        assert clip is None or (expected_norm > clip) == (clip == ACTIVE)
        optimiser.step()

        torch.testing.assert_close(step.loss, expected_loss.detach(), rtol=1e-13, atol=0)
        torch.testing.assert_close(step.logits, expected_logits.detach(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(step.norm, expected_norm, rtol=1e-12, atol=0)
        for name, weight in problem.weights().items():
            torch.testing.assert_close(weight, supernet.get_parameter(name), rtol=1e-12, atol=1e-14, msg=name)
    for name, buffer in problem.supernet.named_buffers():
        torch.testing.assert_close(buffer, supernet.get_buffer(name), rtol=1e-12, atol=1e-14, msg=name)


def test_alpha_and_the_hyperparameters_stay(make_problem, make_batch):
    problem = make_problem()
    parameters = [*problem.supernet.architecture_parameters(), *problem.hyperparameters.raw_parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    problem.step(make_batch(1))
    assert all(torch.equal(one, other) for one, other in zip(parameters, before, strict=True))
    assert all(parameter.grad is None for parameter in [*parameters, *problem.weights().values()])


@pytest.mark.parametrize("learned", [("learning_rate", "weight_decay", "dropout"), ()], ids=["learned", "fixed"])
@pytest.mark.parametrize("clip", [None, ACTIVE, INACTIVE])
@pytest.mark.parametrize("filled", [False, True], ids=["buffers empty", "buffers filled"])
def test_the_unrolled_step_arrives_where_the_weight_step_does(filled, clip, learned, make_problem, make_batch):
    problem = make_problem(filled=filled, clip=clip, learned=learned, relaxation="gumbel")
    problem.schedule_factor = 0.7
    noise = problem.noise_state()
    ahead = problem.step_ahead(make_batch(1), second_order=False)
    problem.repeat_noise(noise)
    step = problem.step(make_batch(1))
    assert clip is None or (step.norm > clip) == (clip == ACTIVE)
    for name, weight in problem.weights().items():
        torch.testing.assert_close(ahead.after[name].detach(), weight.detach(), rtol=1e-12, atol=1e-14, msg=name)


def test_the_weight_step_in_single_precision_uses_the_learned_rate_in_full(make_problem, make_batch):
    problem = make_problem(dtype=torch.float32)
    problem.step(make_batch(1, torch.float32))
    group = problem.optimiser.param_groups[0]
    assert group["lr"] == pytest.approx(0.05, rel=1e-14)
    assert group["weight_decay"] == pytest.approx(0.03, rel=1e-14)


def test_the_validation_loss_has_no_dropout_and_batch_norm_sees_the_batch(make_problem, make_supernet, make_batch):
    problem, batch = make_problem(), make_batch(11)
    problem.hyperparameters.bind(problem.supernet, problem.values())
    loss, _ = problem.validation_loss(problem.weights(), batch)
    supernet, _ = make_supernet("softmax", torch.float64, True)  # in training mode, its dropout rate 0
    torch.testing.assert_close(loss, F.cross_entropy(supernet(batch.inputs), batch.targets), rtol=1e-13, atol=0)
    supernet.eval()
    assert abs(float(loss.detach() - F.cross_entropy(supernet(batch.inputs), batch.targets).detach())) > 1e-3


def test_a_dropout_rate_that_is_not_learned_draws_a_hard_mask(make_problem, make_batch):
    problem = make_problem(learned=())
    seen = []
    problem.supernet.dropout.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    problem.step(make_batch(1))
    ((given, dropped),) = seen
    kept = dropped != 0
    assert 0 < int(kept.sum()) < kept.numel()
    torch.testing.assert_close(dropped[kept], given[kept] / 0.7)


@pytest.mark.parametrize("option", [{"nesterov": True}, {"dampening": 0.1}, {"maximize": True}], ids=str)
def test_a_step_that_is_not_plain_momentum_is_refused(option, make_problem):
    problem = make_problem()
    optimiser = torch.optim.SGD(problem.supernet.weight_parameters(), lr=0.1, momentum=0.9, **option)
    with pytest.raises(ValueError, match="plain step"):
        BilevelProblem(problem.supernet, optimiser, problem.hyperparameters)
