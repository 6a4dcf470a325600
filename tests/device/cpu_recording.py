"""What a CUDA graph does, on a CPU: the same operations on the same memory, with the numbers of the first time."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from nas.operations.fast.library import without_kernels

# A GPU that is recording can neither be waited for nor be given numbers from the processor's memory.
FORBIDDEN = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.lift_fresh.default)


class CpuRecording(TorchDispatchMode):
    """Like :class:`nas.device.cuda_graphs.CudaRecording`: recording leaves everything as it was, a replay does it."""

    made = 0  # recordings so far

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.generators = generators
        self.operations: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self._own: set[int] = set()  # memory of what was made while recording
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        CpuRecording.made += 1

    def record(self, compute: Callable[[], Any]) -> Any:
        generators = [*self.generators, torch.default_generator]
        states = [generator.get_state() for generator in generators]
        with self, without_kernels():  # they pass by the dispatcher, and no GPU has them
            results = compute()
        with torch.no_grad():
            for tensor, before in self._before.values():
                tensor.copy_(before)
        self._before.clear()
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        return results

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in FORBIDDEN:
            raise RuntimeError(f"{function} is not permitted when stream is capturing")
        for one in tree_flatten((args, kwargs))[0]:
            if isinstance(one, torch.Generator) and one._cdata not in {known._cdata for known in self.generators}:
                raise RuntimeError("a generator is not registered")
            if isinstance(one, Tensor) and _memory(one) not in self._own and _memory(one) not in self._before:
                whole = one.detach()
                self._before[_memory(one)] = whole, whole.clone()
        shown = _aliases((args, kwargs))
        result = function(*args, **kwargs)
        self._own |= {_memory(one) for one in tree_flatten(result)[0] if isinstance(one, Tensor)} - self._before.keys()
        self.operations.append((function, *shown, _aliases(result)))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, result in self.operations:
            args, kwargs = _aliases((args, kwargs))
            again = function(*args, **kwargs)
            for old, new in zip(tree_flatten(result)[0], tree_flatten(again)[0], strict=True):
                if isinstance(old, Tensor) and _memory(old) != _memory(new):
                    old.copy_(new)


def _aliases(values: Any) -> Any:
    """``values`` with tensors that lie in the same memory and keep the shape that these have now."""
    return tree_map_only(Tensor, Tensor.detach, values)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
