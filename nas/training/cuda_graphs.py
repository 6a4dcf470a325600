"""CUDA graphs: the kernels of a computation, recorded once and then launched all together.

A supernet's step consists of thousands of small kernels, and a GPU has done most of them before the next is launched. A
replay launches them in one go. It repeats the very same kernels on the very same memory: numbers that were known when
it was recorded, and tensors that were made then, stay what they were. So whatever changes from call to call must be one
of the inputs, or be changed in place (weights, running statistics, the state of a generator).
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from nas.configuration import InvalidValue
from nas.training.entry_point import RunFailed
from nas.training.randomness import Randomness

WARM_UP = 3  # calls that compute as usual first: libraries choose their algorithms and take their memory in them
MOST = 4  # recordings of one function that are kept: a graph holds on to its memory

Inputs = Mapping[str, Tensor]
Numbers = Mapping[str, float]
Function = Callable[[Inputs, Numbers], Sequence[Tensor]]


class Recording(Protocol):
    """One computation, to be repeated."""

    def record(self, compute: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
        """Take down what ``compute`` does, without doing it. Returns its results, which :meth:`replay` fills."""
        ...

    def replay(self) -> None: ...


class CudaRecording:
    """A CUDA graph.

    Args:
        generators: Those of a GPU that the computation draws from; PyTorch's own is known.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)

    def record(self, compute: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
        # Another thread, such as one that loads images, may go on using the GPU meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            return compute()

    def replay(self) -> None:
        self._graph.replay()


NewRecording = Callable[[Sequence[torch.Generator]], Recording]


class Recorded:
    """``function``, recorded once for every kind of call and replayed from then on.

    A kind is the inputs' shapes and types with the values of the numbers: a number that is another one at every call
    keeps the function from being recorded at all. The results of a replay lie in the recording's memory, where the next
    replay of that kind overwrites them.

    Args:
        function: From named tensors and numbers to tensors; see the module on what else it may depend on.
        new_recording: Makes a recording; None computes as usual at every call.
        generators: What ``function`` draws from.
    """

    def __init__(
        self, function: Function, new_recording: NewRecording | None, generators: Sequence[torch.Generator] = ()
    ) -> None:
        self._function, self._new_recording, self._generators = function, new_recording, generators
        self._calls: OrderedDict[Hashable, int] = OrderedDict()  # by kind, before it is recorded
        self._kept: OrderedDict[Hashable, tuple[Recording, Inputs, Sequence[Tensor]]] = OrderedDict()

    def __call__(self, inputs: Inputs, numbers: Numbers | None = None) -> Sequence[Tensor]:
        """``function(inputs, numbers)``.

        Raises:
            RunFailed: It cannot be recorded.
        """
        numbers = numbers or {}
        if self._new_recording is None:
            return self._function(inputs, numbers)
        shapes = tuple((name, one.shape, one.dtype, one.requires_grad) for name, one in inputs.items())
        kind = (shapes, tuple(numbers.items()))
        if kind not in self._kept:
            if not self._is_warm(kind):
                return self._function(inputs, numbers)
            self._kept[kind] = self._record(self._new_recording, inputs, numbers)
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)
        self._kept.move_to_end(kind)
        recording, places, results = self._kept[kind]
        for name, place in places.items():
            place.detach().copy_(inputs[name].detach())
        recording.replay()
        return results

    def _is_warm(self, kind: Hashable) -> bool:
        """Count a call of this kind; whether there have been enough before it."""
        calls = self._calls.pop(kind, 0)
        if calls == WARM_UP:
            return True
        self._calls[kind] = calls + 1
        if len(self._calls) > MOST:
            self._calls.popitem(last=False)
        return False

    def _record(
        self, new_recording: NewRecording, inputs: Inputs, numbers: Numbers
    ) -> tuple[Recording, Inputs, Sequence[Tensor]]:
        recording = new_recording(self._generators)
        places = {name: one.detach().clone().requires_grad_(one.requires_grad) for name, one in inputs.items()}
        try:
            return recording, places, recording.record(lambda: self._function(places, numbers))
        except RuntimeError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RunFailed(
                f"The step cannot be recorded as a CUDA graph ({reason}); set training.cuda_graphs=false."
            ) from error


def recording_for(asked: bool, randomness: Randomness) -> NewRecording | None:
    """How a run records its steps: by CUDA graphs if they are ``asked`` for, or not at all.

    Raises:
        InvalidValue: They are, and the run is not one process on a GPU.
    """
    if not asked:
        return None
    if randomness.device.type != "cuda":
        raise InvalidValue("training.cuda_graphs", True, f"it needs a GPU, and this run is on {randomness.device}")
    if randomness.ranks.count > 1:
        raise InvalidValue("training.cuda_graphs", True, "it must be false in a data-parallel run")
    return CudaRecording
