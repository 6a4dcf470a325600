"""Reinforcement learning with a supernet: an agent that balances a pole, and whose network is searched meanwhile.

A search space is a part like any other: ``supernet()`` is an ``nn.Module`` with two lists of parameters, and
``discretise()`` reads the architecture off it. The agent is plain REINFORCE (Williams, 1992); the weights follow one
batch of episodes, the architecture the next, as in DARTS' first order. Then the found network learns alone.

    python scripts/example_policy_search.py --rounds 60 --seed 0
"""

import argparse
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nas.relaxations import Softmax, Temperature
from nas.signature import Signature
from nas.spaces import Macro

LONGEST = 200  # steps of an episode, each of which is worth 1
DISCOUNT = 0.98
LAYERS = [
    {"type": "dense", "units": [4, 16, 32]},
    {"type": "dense", "units": [4, 16, 32], "optional": True},
]
Policy = Callable[[Tensor], Tensor]  # states (episodes, 4) to logits (episodes, 2)


class CartPole:
    """A pole on a cart (Barto, Sutton and Anderson, 1983): so many side by side, pushed left (0) or right (1)."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.states = torch.rand(count, 4, generator=generator) * 0.1 - 0.05  # place, speed, angle, its speed

    def push(self, actions: Tensor) -> Tensor:
        """Take a step of 0.02 s. Returns which poles still stand, (count,)."""
        _, speed, angle, turning = self.states.unbind(1)
        force, sine, cosine = 20.0 * actions - 10.0, angle.sin(), angle.cos()
        pushed = (force + 0.05 * turning**2 * sine) / 1.1
        bend = (9.8 * sine - cosine * pushed) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
        drive = pushed - 0.05 * bend * cosine / 1.1
        change = torch.stack([speed, drive, turning, bend], dim=1)
        self.states = self.states + 0.02 * change
        return (self.states[:, 0].abs() < 2.4) & (self.states[:, 2].abs() < 0.2095)


def played(policy: Policy, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """States (steps, count, 4), actions and whether the pole stood before them (steps, count)."""
    poles, standing = CartPole(count, generator), torch.ones(count, dtype=torch.bool)
    states, actions, stood = [], [], []
    with torch.no_grad():
        for _ in range(LONGEST):
            states.append(poles.states)
            stood.append(standing)
            actions.append(torch.multinomial(policy(poles.states).softmax(1), 1, generator=generator)[:, 0])
            standing = standing & poles.push(actions[-1])
            if not standing.any():
                break
    return torch.stack(states), torch.stack(actions), torch.stack(stood).float()


def loss_of(policy: Policy, count: int, generator: torch.Generator) -> Tensor:
    """Minus the log-probability of each action times how much better than usual its episode went on, 0-dim."""
    states, actions, stood = played(policy, count, generator)
    worth, following = torch.zeros_like(stood), torch.zeros(count)
    for step in reversed(range(len(stood))):
        following = stood[step] + DISCOUNT * following
        worth[step] = following
    usual = (worth * stood).sum(1, keepdim=True) / stood.sum(1, keepdim=True).clamp_min(1)
    advantage = (worth - usual) / (worth - usual)[stood > 0].std().clamp_min(1e-6)
    likely = policy(states.flatten(0, 1)).log_softmax(1).gather(1, actions.flatten()[:, None]).view_as(stood)
    return -(likely * advantage * stood).sum() / stood.sum()


def mean_return(policy: Policy, generator: torch.Generator) -> float:
    """The mean number of steps that 100 poles stand."""
    return float(played(policy, 100, generator)[2].sum(0).mean())


def moved(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def main(rounds: int, episodes: int, seed: int) -> int:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    space = Macro(LAYERS, ["tanh", "relu"], "plain", signature=Signature((4,), 2))

    supernet = space.supernet(Softmax(Temperature(1.0, 1.0))).eval()  # batch norm scales and shifts, no more
    weights = torch.optim.Adam(supernet.weight_parameters(), lr=0.01)
    alphas = torch.optim.Adam(supernet.architecture_parameters(), lr=0.03)
    for _ in range(rounds):
        moved(weights, loss_of(supernet, episodes, generator))
        moved(alphas, loss_of(supernet, episodes, generator))
    architecture = supernet.discretise()
    print("found:", ", ".join(f"{name}={option}" for name, option in architecture.items()))
    print(f"the supernet's return: {mean_return(supernet, generator):.0f} of {LONGEST}")

    agent: nn.Module = space.network(architecture).eval()
    before, optimiser = mean_return(agent, generator), torch.optim.Adam(agent.parameters(), lr=0.01)
    for _ in range(rounds):
        moved(optimiser, loss_of(agent, episodes, generator))
    after = mean_return(agent, generator)
    print(f"example_policy_search: return {before:.0f} before and {after:.0f} after {rounds} rounds, at most {LONGEST}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=60, help="updates of weights and of the architecture (default 60)"
    )
    parser.add_argument("--episodes", type=int, default=16, help="poles side by side in each of them (default 16)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.exit(main(given.rounds, given.episodes, given.seed))
