"""Policy gradient with a moving-average baseline and an entropy bonus.

Williams (1992), "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning".
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from nas.baselines.policy import Policy, PolicySettings, place_of, z_of
from nas.baselines.strategy import EncodedStrategy, Vector
from nas.errors import require
from nas.spaces.space import SearchSpace


class Reinforce(EncodedStrategy):
    """Makes candidates that scored above the baseline more likely; the score is the reward.

    Args:
        policy: The distribution that is learned: independent decisions, or an LSTM controller.
        optimiser: ``sgd`` moves by the gradient itself, so its ``rate`` depends on the unit of the score.
        rate: The optimiser's learning rate.
        baseline_momentum: The share of the old value in the moving average of the rewards.
        normalise: Whether advantages are divided by their moving root mean square.
        entropy_weight: The weight of the policy's entropy in nats beside the advantages.
        batch: Candidates per ask and update, which can be evaluated in parallel.
    """

    def __init__(
        self,
        policy: PolicySettings,
        optimiser: Literal["sgd", "adam"] = "adam",
        rate: float = 0.1,
        baseline_momentum: float = 0.9,
        normalise: bool = True,
        entropy_weight: float = 0.1,
        batch: int = 1,
        *,
        space: SearchSpace,
        generator: torch.Generator,
    ) -> None:
        require(0 < rate < math.inf, "rate", rate, "it must be above 0")
        good = 0 <= baseline_momentum < 1
        require(good, "baseline_momentum", baseline_momentum, "it must be at least 0 and below 1")
        require(0 <= entropy_weight < math.inf, "entropy_weight", entropy_weight, "it must be at least 0")
        require(batch >= 1, "batch", batch, "it must be at least 1")
        super().__init__(space=space, generator=generator)
        self.policy: Policy = policy.policy(self.sizes, len(self.continuous), generator)
        self.optimiser: torch.optim.Optimizer = (
            torch.optim.SGD(self.policy.parameters(), lr=rate)
            if optimiser == "sgd"
            else torch.optim.Adam(self.policy.parameters(), lr=rate)
        )
        self.momentum, self.normalise = baseline_momentum, normalise
        self.entropy_weight, self.batch = entropy_weight, batch
        self.baseline: float | None = None
        self.mean_square, self.updates = 0.0, 0
        self.worst: float | None = None
        self.entropy = math.nan

    def propose(self) -> list[Vector]:
        """Vectors, each followed by its action, because the space may repair what the policy has drawn."""
        choices = len(self.sizes)
        actions: list[Vector] = self.policy.sample(self.batch, self.generator).tolist()
        return [[*action[:choices], *map(place_of, action[choices:]), *action] for action in actions]

    def rewritten(self, vector: Vector, entries: Mapping[int, float]) -> Vector:
        """Also rewrites the action: the policy learns from what was scored, as if it had drawn it."""
        choices = len(self.sizes)
        actions = {entry: number if entry < choices else z_of(number) for entry, number in entries.items()}
        return super().rewritten(vector, {**entries, **{self.length + entry: one for entry, one in actions.items()}})

    def learn(self, vectors: Sequence[Vector], scores: Sequence[float]) -> None:
        rewards = self._rewards(scores)
        actions = torch.tensor([vector[self.length :] for vector in vectors], dtype=torch.float64)
        if rewards is not None:
            surrogate, entropy = self.surrogate(actions, self._advantages(rewards))
            self.optimiser.zero_grad()
            (-surrogate - self.entropy_weight * entropy).backward()
            self.optimiser.step()
            self.entropy = entropy.item()

    def surrogate(self, actions: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        """Means over ``actions``, 0-dim: a number whose gradient estimates the policy gradient, and the entropy."""
        log_probabilities, entropies = self.policy.evaluate(actions)
        return (advantages * log_probabilities).mean(), entropies.mean()

    def _rewards(self, scores: Sequence[float]) -> Tensor | None:
        """The scores. One that is not finite counts as the worst finite score so far; None if there is no such yet."""
        finite = [score for score in scores if math.isfinite(score)]
        if finite:
            self.worst = min(finite) if self.worst is None else min(self.worst, *finite)
        if self.worst is None:
            return None
        rewards = [score if math.isfinite(score) else self.worst for score in scores]
        return torch.tensor(rewards, dtype=torch.float64)

    def _advantages(self, rewards: Tensor) -> Tensor:
        """Rewards minus the baseline, which takes them in afterwards: it must not depend on the actions it judges."""
        mean = rewards.mean().item()
        baseline = mean if self.baseline is None else self.baseline
        advantages = rewards - baseline
        self.baseline = self.momentum * baseline + (1 - self.momentum) * mean
        if not self.normalise:
            return advantages
        self.updates += 1
        self.mean_square = self.momentum * self.mean_square + (1 - self.momentum) * advantages.square().mean().item()
        scale = math.sqrt(self.mean_square / (1 - self.momentum**self.updates))
        return advantages / scale if scale > 0 else advantages

    def statistics(self) -> dict[str, float]:
        if self.baseline is None:
            return {}
        found = {"policy/entropy": self.entropy, "policy/baseline": self.baseline}
        for choice, row in zip(self.space.choices, self.policy.marginals(), strict=False):  # categorical ones follow
            probabilities = zip(choice.options, row, strict=True)
            found |= {f"probability/{choice.name}/{option}": value for option, value in probabilities}
        return found

    def state_dict(self) -> dict[str, Any]:
        own = {
            "policy": self.policy.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "baseline": self.baseline,
            "mean_square": self.mean_square,
            "updates": self.updates,
            "worst": self.worst,
            "entropy": self.entropy,
        }
        return {**super().state_dict(), **copy.deepcopy(own)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.policy.load_state_dict(state["policy"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.baseline, self.worst, self.entropy = state["baseline"], state["worst"], state["entropy"]
        self.mean_square, self.updates = state["mean_square"], state["updates"]
