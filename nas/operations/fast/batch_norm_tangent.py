"""The tangent of a batch norm along a direction of its input, and the gradient of that: a part of second derivatives.

With ``u = x - mean`` and ``s = scale``, the tangent of the mean along ``v`` is ``mean(v)`` and that of the scale is
``-s^3 cov`` with ``cov = mean(u v)``, so that the tangent of ``u s`` is ``s (v - mean(v)) - s^3 cov u``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.operations.fast import library
from nas.operations.fast.normalisation import Statistics


class _Pair(library.Settings):
    _fields_ = (
        *library.numbers("n", "groups", "pixels", "c", "sample", "group", "pixel", "threads"),
        *library.addresses("x", "v", "mean", "sums", "products"),
    )


class _Combination(library.Settings):
    _fields_ = (
        *library.numbers("n", "groups", "pixels", "c", "threads"),
        *library.addresses("x", "y", "z", "v", "mean", "coefficients"),
    )


@dataclass(frozen=True)
class BatchNormTangent:
    """Per plane and channel, the normalised value's tangent is ``scale * v + across * (x - mean) + shift``.

    Attributes:
        mean_tangent: The tangent of the mean.
        across: The tangent of the scale, ``-s^3 cov``.
        count: The number of values in a channel; 0 where the statistics are constants.
    """

    mean: Tensor
    scale: Tensor
    mean_tangent: Tensor
    across: Tensor
    count: int

    @property
    def shift(self) -> Tensor:
        return -self.scale * self.mean_tangent

    @classmethod
    def of(cls, x: Tensor, v: Tensor, statistics: Statistics) -> "BatchNormTangent":
        """``x`` and ``v`` (batch, planes, H, W, C) with equal strides."""
        mean, scale = statistics.mean, statistics.scale
        if not statistics.of_batch:
            nothing = torch.zeros_like(mean)
            return cls(mean, scale, nothing, nothing, 0)
        batch, planes, height, width, channels = x.shape
        count = batch * height * width
        sums, products = (x.new_empty(batch, planes, channels) for _ in range(2))
        settings = _Pair(
            n=batch,
            groups=planes,
            pixels=height * width,
            c=channels,
            sample=x.stride(0),
            group=x.stride(1),
            pixel=x.stride(3 if width > 1 else 2),
        )
        settings.fill(x=x, v=v, mean=mean, sums=sums, products=products)
        settings.run("sum_pairs", x.dtype)
        return cls(mean, scale, sums.sum(0) / count, -(scale**3) * products.sum(0) / count, count)

    def constants(
        self, sums: Tensor, products: Tensor, moving_sums: Tensor, moving_products: Tensor, moving_pairs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What x's gradient has besides the two gradients themselves: a constant, and factors of ``u`` and of ``v``.

        Args:
            sums, products: The normalised value's gradient, plain and times ``u``, summed over the values.
            moving_sums, moving_products, moving_pairs: The gradient of its tangent, plain, times ``u`` and times ``v``,
                summed alike.
        """
        if self.count == 0:
            nothing = torch.zeros_like(sums)
            return nothing, nothing, nothing
        cubed, inverse = self.scale**3, 1 / self.count
        pairs = moving_pairs - self.mean_tangent * moving_sums
        along = -cubed * moving_products * inverse
        slope = -cubed * inverse * (products + pairs) - 3 * self.scale**2 * self.across * moving_products * inverse
        constant = -(self.scale * sums + self.across * moving_sums) * inverse - along * self.mean_tangent
        return constant, slope, along

    def through_statistics(self, gx: Tensor, moving: Tensor, x: Tensor, v: Tensor, moments: Tensor) -> None:
        """Turn ``gx`` (batch, planes, H, W, C), the normalised value's gradient, into x's, in place.

        Args:
            moving: The gradient with respect to the normalised value's tangent.
            moments: (5, planes, C): what :meth:`constants` takes.
        """
        constant, slope, along = self.constants(*moments)
        combine(gx, x, self.mean, [constant, self.scale, self.across, slope, along], (moving, v))


def combine(
    gx: Tensor, x: Tensor, mean: Tensor, coefficients: Sequence[Tensor], others: tuple[Tensor, Tensor] | None = None
) -> None:
    """``c0 + c1 * gx + c2 * others[0] + c3 * (x - mean) + c4 * others[1]``, in place of ``gx``.

    Args:
        gx, x: (batch, planes, H, W, C), contiguous, and so are ``others``.
        mean: (planes, C).
        coefficients: The five of them, (planes, C).
    """
    batch, planes, height, width, channels = x.shape
    settings = _Combination(n=batch, groups=planes, pixels=height * width, c=channels)
    y, v = (None, None) if others is None else others
    settings.fill(x=gx, y=y, z=x, v=v, mean=mean, coefficients=torch.stack(list(coefficients)).contiguous())
    settings.run("combine", x.dtype)
