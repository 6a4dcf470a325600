"""The run's named random generators, each derived from the run's seed.

PyTorch's own initialisation and ``nn.Dropout`` draw from the global generator; it is seeded and saved here too.
In a data-parallel run every rank draws the same data and the same initial weights, and noise of its own.
"""

import hashlib
import logging
import os
import re
import warnings
from typing import TextIO

import torch

from nas.distributed import Ranks, current_ranks
from nas.errors import InvalidValue

log = logging.getLogger(__name__)
OF_A_RANK = ("dropout", "learned augmentation")  # drawn for a rank's own share of the batch


class Randomness:
    """Named generators on the CPU or on ``device``, made when first asked for; ``ranks`` are this process's."""

    def __init__(self, seed: int, device: torch.device | str = "cpu", ranks: Ranks | None = None) -> None:
        self.seed, self.device = seed, torch.device(device)
        self.ranks = current_ranks() if ranks is None else ranks
        self._generators: dict[str, torch.Generator] = {}
        self._restored: dict[str, torch.Tensor] = {}
        torch.manual_seed(self._derived("global"))

    def branch(self, name: str) -> "Randomness":
        """The generators of a part of the run that draws independently. The global generator is seeded anew."""
        return Randomness(self._derived(name), self.device, self.ranks)

    def seed_ranks_apart(self) -> None:
        """Seed the global generator of each rank differently. Call it once the initial weights are drawn."""
        if not self.ranks.is_first:
            torch.manual_seed(self._derived(f"global{self._suffix}"))

    @property
    def _suffix(self) -> str:
        return "" if self.ranks.is_first else f"/rank {self.ranks.rank}"

    def _derived(self, name: str) -> int:
        name += self._suffix if name in OF_A_RANK else ""
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{name}".encode()).digest()[:7], "big")

    def on_cpu(self, name: str) -> torch.Generator:
        """For what is drawn on the CPU, such as the order of the data."""
        return self._generator(name, torch.device("cpu"))

    def on_device(self, name: str) -> torch.Generator:
        """For noise that is drawn where the network computes."""
        return self._generator(name, self.device)

    def anew(self, name: str) -> torch.Generator:
        """A generator on the CPU in the same state at every call: for what is drawn at once, and may be drawn again."""
        return torch.Generator().manual_seed(self._derived(name))

    def _generator(self, name: str, device: torch.device) -> torch.Generator:
        if name not in self._generators:
            self._generators[name] = torch.Generator(device).manual_seed(self._derived(name))
            if name in self._restored:
                self._generators[name].set_state(self._restored[name].cpu())
        return self._generators[name]

    def state_dict(self) -> dict[str, torch.Tensor]:
        states = self._restored | {name: generator.get_state() for name, generator in self._generators.items()}
        states["global"] = torch.get_rng_state()
        if self.device.type == "cuda":
            states["global_cuda"] = torch.cuda.get_rng_state(self.device)
        for rank, own in enumerate(self.ranks.gather(self._of_this_rank(states))):
            states |= {f"{name}/rank {rank}" if rank else name: state for name, state in own.items()}
        return states

    @staticmethod
    def _of_this_rank(states: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: states[name] for name in (*OF_A_RANK, "global", "global_cuda") if name in states}

    def load_state_dict(self, states: dict[str, torch.Tensor]) -> None:
        """Restore every generator, also those that have not been used yet.

        The state must name every generator that has been used.
        """
        if not self.ranks.is_first:
            own = {
                name.removesuffix(self._suffix): state for name, state in states.items() if name.endswith(self._suffix)
            }
            states = states | own
        self._restored = dict(states)
        for name, generator in self._generators.items():
            generator.set_state(states[name].cpu())
        torch.set_rng_state(states["global"].cpu())
        if "global_cuda" in states:
            torch.cuda.set_rng_state(states["global_cuda"].cpu(), self.device)


def checked_seed(seed: object) -> int:
    """The run's seed.

    Raises:
        InvalidValue: It is not a whole number from 0 to 2^63 - 1.
    """
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise InvalidValue("seed", seed, "it must be a whole number from 0 to 2^63 - 1")
    return seed


_CANNOT = re.compile(r"^(.+?) does not have a deterministic implementation")


def use_deterministic_algorithms() -> None:
    """Switch them on for this process. An operation that has none still runs; its name is logged at its first use.

    On a GPU this must come before anything is computed there: cuBLAS reads its workspace's size only once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    named: set[str] = set()
    show = warnings.showwarning

    def telling(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        found = _CANNOT.match(str(message))
        if found is None:
            show(message, category, filename, lineno, file, line)
        elif found[1] not in named:
            named.add(found[1])
            log.info(f"training.deterministic: PyTorch has no deterministic {found[1]}; it may differ from run to run")

    warnings.showwarning = telling
    warnings.filterwarnings("always", message=r".* does not have a deterministic implementation")
