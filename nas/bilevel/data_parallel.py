"""A bilevel problem spread over the processes of a data-parallel run, applied from outside."""

from collections.abc import Mapping

from torch import Tensor

from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.distributed import Ranks
from nas.operations.memory import Outputs
from nas.tasks.task import Values

Parameters = Mapping[str, Tensor]


def data_parallel(problem: BilevelProblem, ranks: Ranks) -> BilevelProblem:
    """Let the losses of ``problem`` be those of the joint batch, to any order of differentiation.

    Every gradient with respect to weights, alphas, operation weights and hyperparameters becomes its mean over
    ``ranks``. So a hypergradient averages the training gradient before it forms ``w'`` from it, and the validation
    gradient before that meets the Hessian. In one process nothing changes.

    Returns:
        ``problem`` itself.
    """
    if ranks.count == 1:
        return problem
    own_training_pass, own_validation_loss = problem.training_pass, problem.validation_loss

    def joint(tensors: Parameters) -> dict[str, Tensor]:
        return ranks.with_average_gradients(tensors)

    def training_pass(
        parameters: Parameters, batch: Batch, values: Values, operation_weights: Parameters | None = None
    ) -> tuple[Tensor, Outputs]:
        learned = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        loss, logits = own_training_pass(
            joint({**problem.functional.parameters, **parameters}),
            batch,
            {**values, **joint(learned)},
            None if operation_weights is None else joint(operation_weights),
        )
        return ranks.average([loss])[0], logits

    def validation_loss(
        parameters: Parameters, batch: Batch, operation_weights: Parameters | None = None
    ) -> tuple[Tensor, Outputs]:
        loss, logits = own_validation_loss(
            joint({**problem.functional.parameters, **parameters}),
            batch,
            None if operation_weights is None else joint(operation_weights),
        )
        return ranks.average([loss])[0], logits

    problem.training_pass = training_pass  # type: ignore[method-assign]
    problem.validation_loss = validation_loss  # type: ignore[method-assign]
    return problem
