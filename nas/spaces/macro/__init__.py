"""The macro space: a chain of convolution, pooling and dense layers, declared in YAML."""

from nas.spaces.macro.space import Macro

__all__ = ["Macro"]
