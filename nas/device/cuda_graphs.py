"""CUDA graphs: the kernels of a computation, recorded once and then launched all together.

A supernet's step consists of thousands of small kernels, and a GPU has done most of them before the next is launched. A
replay launches them in one go. It repeats the very same kernels on the very same memory: numbers that were known when
it was recorded, and tensors that were made then, stay what they were. So whatever changes from call to call must be one
of the inputs, or be changed in place (weights, running statistics, the state of a generator).
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol
from weakref import WeakMethod

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from nas.distributed import Ranks
from nas.errors import InvalidValue, RunFailed

WARM_UP = 3  # calls that compute as usual first: libraries choose their algorithms and take their memory in them
MOST = 2  # recordings of one function that are kept


class Recording(Protocol):
    """One computation, to be repeated."""

    def record(self, compute: Callable[[], Any]) -> Any:
        """Take down what ``compute`` does, without doing it. Returns its results, which :meth:`replay` fills."""
        ...

    def replay(self) -> None: ...


class CudaGraphs:
    """Makes the recordings of one run, which share their memory: they are replayed one after the other.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, generators: Sequence[torch.Generator]) -> "CudaRecording":
        return CudaRecording(self.device, self._pool, generators)


class CudaRecording:
    """A CUDA graph.

    Args:
        device: Where it computes.
        pool: Whence it takes its memory.
        generators: The GPU's generators that the computation draws from; PyTorch's own is known.
    """

    def __init__(self, device: torch.device, pool: Any, generators: Sequence[torch.Generator]) -> None:
        self._device, self._pool = device, pool
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)

    def record(self, compute: Callable[[], Any]) -> Any:
        # On the run's own GPU, not on the process's current one. Another thread, such as one that loads images, may go
        # on using it meanwhile.
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(self._graph, pool=self._pool, capture_error_mode="thread_local"),
        ):
            return compute()

    def replay(self) -> None:
        with torch.cuda.device(self._device):
            self._graph.replay()


NewRecording = Callable[[Sequence[torch.Generator]], Recording]


class Recorded:
    """``function``, recorded once for every kind of call and replayed from then on.

    A kind is the shapes and types of the tensors among the arguments, with everything else among them: a number that
    differs at every call keeps the function from being recorded at all. The results of a replay lie in the recording's
    memory, where the next replay of that kind overwrites them.

    Args:
        function: A method; its arguments and results are tensors in any nesting of tuples, lists and dictionaries. The
            module says what else it may depend on. It is not kept alive, lest its owner and this keep each other, and
            the GPU's memory with them.
        new_recording: Makes a recording.
        generators: The generators that ``function`` draws from.
    """

    def __init__(
        self, function: Callable[..., Any], new_recording: NewRecording, generators: Sequence[torch.Generator] = ()
    ) -> None:
        self._method = WeakMethod(function)
        self._new_recording, self._generators = new_recording, generators
        self._calls: OrderedDict[Hashable, int] = OrderedDict()  # by kind, before it is recorded
        self._kept: OrderedDict[Hashable, tuple[Recording, list[Tensor], Any]] = OrderedDict()

    def __call__(self, *arguments: Any) -> Any:
        """``function(*arguments)``.

        Raises:
            RunFailed: It cannot be recorded.
        """
        function = self._method()
        assert function is not None
        leaves, structure = tree_flatten(arguments)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        shapes = tuple((one.shape, one.dtype, one.requires_grad) for one in tensors)
        numbers = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        kind = (structure, shapes, numbers)
        if kind not in self._kept:
            if not self._is_warm(kind):
                return function(*arguments)
            while len(self._kept) >= MOST:  # before, so that its memory can be had again
                self._kept.popitem(last=False)
            places = [one.detach().clone().requires_grad_(one.requires_grad) for one in tensors]
            own = iter(places)
            inputs = tree_unflatten([next(own) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure)
            recording = self._new_recording(self._generators)
            self._kept[kind] = recording, places, _recorded(recording, lambda: function(*inputs))
        self._kept.move_to_end(kind)
        recording, places, results = self._kept[kind]
        for place, tensor in zip(places, tensors, strict=True):
            place.detach().copy_(tensor.detach())
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


def _recorded(recording: Recording, compute: Callable[[], Any]) -> Any:
    """The results of ``compute``, which :meth:`Recording.replay` fills."""
    try:
        with torch.compiler.set_stance("fail_on_recompile"):  # a compiler cannot work while a GPU records
            return recording.record(compute)
    except RuntimeError as error:
        cause: BaseException = error
        while cause.__context__ is not None:  # that the recording cannot be ended properly is what came of it
            cause = cause.__context__
        if isinstance(cause, torch.OutOfMemoryError):
            raise cause from error
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise RunFailed(
            f"The step cannot be recorded as a CUDA graph ({reason}); set training.cuda_graphs=false."
        ) from error


def cuda_graphed(
    owner: object,
    methods: Sequence[str],
    new_recording: NewRecording | None,
    generators: Sequence[torch.Generator] = (),
) -> None:
    """Let ``owner`` record and replay those of its ``methods``; None leaves them as they are."""
    if new_recording is not None:
        for name in methods:
            setattr(owner, name, Recorded(getattr(owner, name), new_recording, generators))


def recording_for(asked: bool, device: torch.device, ranks: Ranks) -> NewRecording | None:
    """How a run records its steps: by CUDA graphs if they are ``asked`` for, or not at all.

    Raises:
        InvalidValue: They are, and the run is not one process on a GPU.
    """
    if not asked:
        return None
    if device.type != "cuda":
        raise InvalidValue("training.cuda_graphs", True, f"it needs a GPU, and this run is on {device}")
    if ranks.count > 1:
        raise InvalidValue("training.cuda_graphs", True, "it must be false in a data-parallel run")
    return CudaGraphs(device)
