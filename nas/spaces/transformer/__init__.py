"""The Transformer space: layers of attention, convolution or gating over tokens, series and patches of images."""

from nas.spaces.transformer.space import Transformer

__all__ = ["Transformer"]
