"""Activations of scores, some with a mask that says how much of an activation there is."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F


class LeakyReLUPar(NamedTuple):
    """``(1 - a) / 2 |x| + (1 + a) / 2 x``: the identity where the mask ``a`` is 1, ReLU where it is 0 (DiMP)."""

    def value(self, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """The activation of ``x`` under the mask ``a``, of one shape."""
        return (1 - a) / 2 * x.abs() + (1 + a) / 2 * x

    def slope(self, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """Its derivative by ``x``; where x is 0 that of both sides in the middle."""
        return (1 - a) / 2 * x.sign() + (1 + a) / 2


class BentIdentPar(NamedTuple):
    """``(1 - a) / 2 (sqrt(x^2 + 4 b^2) - 2 b) + (1 + a) / 2 x``: as ``LeakyReLUPar``, smooth within about ``b`` of 0."""

    b: float = 1.0

    def value(self, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """The activation of ``x`` under the mask ``a``, of one shape."""
        return (1 - a) / 2 * (self._root(x) - 2 * self.b) + (1 + a) / 2 * x

    def slope(self, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """Its derivative by ``x``."""
        return (1 - a) / 2 * x / self._root(x) + (1 + a) / 2

    def _root(self, x: torch.Tensor) -> torch.Tensor:
        return (x.square() + 4 * self.b**2).sqrt()


def mlu(x: torch.Tensor, floor: float) -> torch.Tensor:
    """The identity above 0, from there down to ``-floor`` exponentially: ATOM's activation of responses.

    Args:
        floor: positive.
    """
    return F.elu(F.leaky_relu(x, 1 / floor), floor)


def mlu_slope(x: torch.Tensor, floor: float) -> torch.Tensor:
    """The derivative of ``mlu`` by ``x``."""
    return (x.clamp(max=0) / floor).exp()


def softmax_reg(x: torch.Tensor, dim: int | tuple[int, ...], reg: float | None = None) -> torch.Tensor:
    """``exp(x) / (exp(reg) + sum exp(x))`` over ``dim``, without overflow; the softmax where ``reg`` is None.

    The additional term is the score of nothing being there (Danelljan et al., PrDiMP, CVPR 2020).
    """
    total = x.logsumexp(dim, keepdim=True)
    if reg is not None:
        total = torch.logaddexp(total, torch.full_like(total, reg))
    return (x - total).exp()


def score_activation(name: str, parameter: float | None = None) -> LeakyReLUPar | BentIdentPar:
    """The masked activation called "relu", or "bentpar" with ``b = parameter``.

    Raises:
        ValueError: another name, or a parameter that is not positive.
    """
    if name == "relu":
        return LeakyReLUPar()
    if name == "bentpar" and parameter is not None and 0 < parameter < math.inf:
        return BentIdentPar(parameter)
    raise ValueError(
        f"score activation '{name}' with act_param {parameter}; take 'relu', or 'bentpar' with a width"
    )
