"""The first-order hypergradient against a plain backward pass."""

import torch
import torch.nn.functional as F

from nas.bilevel.first_order import FirstOrder


def test_it_is_the_plain_gradient_of_the_validation_loss(make_problem, make_supernet, make_batch):
    problem = make_problem(relaxation="gumbel", dtype=torch.float32, smooth=False)
    validation = make_batch(11, torch.float32)
    alphas = problem.supernet.architecture_parameters()
    report = FirstOrder().gradients(problem, make_batch(10, torch.float32), validation, alphas)

    supernet, _ = make_supernet("gumbel", torch.float32, False)
    logits = supernet(validation.inputs)  # its dropout rate is 0
    loss = F.cross_entropy(logits, validation.targets)
    loss.backward()
    assert torch.equal(report.validation_loss, loss.detach())
    assert torch.equal(report.validation_logits, logits.detach())
    assert report.passes == (0, 1)
    for gradient, reference in zip(report.gradients, supernet.architecture_parameters(), strict=True):
        torch.testing.assert_close(gradient, reference.grad, rtol=1e-5, atol=1e-8)


def test_hyperparameters_get_a_gradient_of_zero(make_problem, make_batch):
    problem = make_problem()
    raw = problem.hyperparameters.raw_parameters()
    alphas = problem.supernet.architecture_parameters()
    report = FirstOrder().gradients(problem, make_batch(10), make_batch(11), [*alphas, *raw])
    assert [float(gradient) for gradient in report.gradients[len(alphas) :]] == [0.0, 0.0, 0.0]
    assert FirstOrder.reaches == {"architecture"}
