"""Optimisers of small problems: Gauss-Newton, Newton and gradient steps on a tuple of tensors.

A variable ``x`` is a tuple of tensors; a problem is a function of it, the residuals ``r(x)`` (a tuple of tensors, the
loss is ``|r|^2``) or a scalar loss. Nothing here waits for the device: what would stop an iteration is a factor of 0
instead. Gradients are taken whether or not the caller records them.

Gauss-Newton replaces the loss about ``x`` by ``|r + J p|^2`` and solves ``J^T J p = -J^T r`` by conjugate gradient,
where ``J`` and ``J^T`` are products by differentiating twice (Danelljan et al., ATOM, CVPR 2019, 4.2 and its
supplement). The conjugate directions are Fletcher and Reeves's (1964) or Polak and Ribiere's (1969), never reversed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

Tensors = tuple[torch.Tensor, ...]
Inner = Callable[[Tensors, Tensors], Tensors]
Linear = Callable[[Tensors], Tensors]


class Directions(NamedTuple):
    """What conjugate gradient knows when it stops, to go on with its directions later."""

    direction: Tensors
    rho: Tensors
    residual: Tensors  # before the last step


class Solution(NamedTuple):
    """The answer of ``conjugate_gradient``."""

    x: Tensors
    residual_norms: torch.Tensor  # [iterations + 1], before the first and after each iteration
    directions: Directions | None  # None after no iteration


class Optimum(NamedTuple):
    """The answer of an optimiser."""

    x: Tensors  # detached
    losses: torch.Tensor  # [steps], before each step
    residual_norms: torch.Tensor  # of conjugate gradient, all runs in a row; empty for the others
    directions: Directions | None = None


def dot(a: Tensors, b: Tensors) -> Tensors:
    """The inner product over all tensors, once for each of them."""
    total = torch.stack([(u * v).sum() for u, v in zip(a, b)]).sum()
    return (total,) * len(a)


def conjugate_gradient(
    operator: Linear,
    right: Tensors,
    iterations: int,
    *,
    inner: Inner = dot,
    precondition: Linear = lambda r: r,
    fletcher_reeves: bool = True,
    exact_step: bool = False,
    tolerance: float = 0.0,
    directions: Directions | None = None,
    forgetting: float = 0.0,
) -> Solution:
    """Solve ``operator(x) = right`` from 0, where ``operator`` is linear, symmetric and positive.

    Args:
        inner: inner products, one scalar per tensor: equal where the tensors are one variable, their own where
            they are independent ones that are solved at the same time.
        precondition: about the inverse of ``operator``.
        fletcher_reeves: the directions' formula; else Polak and Ribiere's.
        exact_step: step length ``<p, r> / <p, A p>``; else ``<r, M r> / <p, A p>``, the same as long as the
            directions are conjugate.
        tolerance: x stays as it is once the norm of the residual is no larger.
        directions: of an earlier solution of nearly the same problem, to go on with.
        forgetting: what these count for, in (0, 1]; 0: nothing.
    """
    x = tuple(torch.zeros_like(part) for part in right)
    residual = right
    norms = [square(residual).sqrt()]
    # What is left at the level of rounding has no direction, and steps along it may be of any length.
    least = (norms[0] * torch.finfo(norms[0].dtype).eps).clamp(min=tolerance)
    if not forgetting:
        directions = None
    elif directions is not None:
        directions = directions._replace(rho=tuple(rho / forgetting for rho in directions.rho))
    for _ in range(iterations):
        z = precondition(residual)
        rho = inner(residual, z)
        direction = z
        if directions is not None:
            change = rho
            if not fletcher_reeves:
                change = tuple(new - old for new, old in zip(rho, inner(directions.residual, z)))
            beta = tuple(_ratio(a, b).clamp(min=0) for a, b in zip(change, directions.rho))
            direction = _add(z, directions.direction, beta)
        image = operator(direction)
        along = inner(direction, residual) if exact_step else rho
        going = norms[-1] > least
        alpha = tuple(_ratio(a, b) * going for a, b in zip(along, inner(direction, image)))
        directions = Directions(direction, rho, residual)
        x = _add(x, direction, alpha)
        residual = _add(residual, image, tuple(-a for a in alpha))
        norms.append(square(residual).sqrt())
    return Solution(x, torch.stack(norms), directions)


def gauss_newton(
    residuals: Callable[[Tensors], Tensors],
    x: Tensors,
    iterations: Sequence[int],
    *,
    inner: Inner = dot,
    precondition: Linear = lambda r: r,
    fletcher_reeves: bool = True,
    exact_step: bool = False,
    tolerance: float = 0.0,
    directions: Directions | None = None,
    forgetting: float = 0.0,
) -> Optimum:
    """Minimise ``|r(x)|^2``: linearise, take conjugate-gradient iterations, and again.

    Args:
        residuals: ``r``.
        x: where to begin.
        iterations: of conjugate gradient, for each linearisation. With one entry the problem is linearised once.
        inner, precondition, fletcher_reeves, exact_step, tolerance, directions, forgetting: see
            ``conjugate_gradient``; the directions are handed on from one linearisation to the next.
    """
    losses, norms = [], []
    for count in iterations:
        with _gradients(x) as variable:
            values = residuals(variable)
            dummies = tuple(value.detach().requires_grad_() for value in values)
            gradient = torch.autograd.grad(values, variable, dummies, create_graph=True)

            def normal(p: Tensors, values=values, variable=variable, dummies=dummies, gradient=gradient):
                image = torch.autograd.grad(gradient, dummies, p, retain_graph=True)  # J p
                return torch.autograd.grad(values, variable, image, retain_graph=True)  # J^T J p

            losses.append(square(dummies).detach())
            solution = conjugate_gradient(
                normal,
                tuple(-part.detach() for part in gradient),
                count,
                inner=inner,
                precondition=precondition,
                fletcher_reeves=fletcher_reeves,
                exact_step=exact_step,
                tolerance=tolerance,
                directions=directions,
                forgetting=forgetting,
            )
        directions = solution.directions or directions
        x = _add(x, solution.x)
        norms.append(solution.residual_norms)
    return Optimum(x, _row(losses), torch.cat(norms) if norms else torch.zeros(0), directions)


def newton(
    loss: Callable[[Tensors], torch.Tensor],
    x: Tensors,
    iterations: Sequence[int],
    *,
    inner: Inner = dot,
    precondition: Linear = lambda r: r,
    fletcher_reeves: bool = True,
    damping: float = 0.0,
    damping_decay: float = 1.0,
) -> Optimum:
    """Minimise a scalar: solve ``(H + damping I) p = -gradient`` by conjugate gradient, and again.

    Args:
        loss: of a variable.
        x: where to begin.
        iterations: of conjugate gradient, for each step.
        damping: added to the Hessian's diagonal, multiplied by ``damping_decay`` after each step.
        inner, precondition, fletcher_reeves: see ``conjugate_gradient``.
    """
    losses, norms = [], []
    for count in iterations:
        with _gradients(x) as variable:
            value = loss(variable)
            gradient = torch.autograd.grad(value, variable, create_graph=True)

            def damped(p: Tensors, variable=variable, gradient=gradient, damping=damping):
                return _add(torch.autograd.grad(gradient, variable, p, retain_graph=True), p, damping)

            losses.append(value.detach())
            right = tuple(-part.detach() for part in gradient)
            solution = conjugate_gradient(
                damped,
                right,
                count,
                inner=inner,
                precondition=precondition,
                fletcher_reeves=fletcher_reeves,
            )
        x = _add(x, solution.x)
        norms.append(solution.residual_norms)
        damping *= damping_decay
    return Optimum(x, _row(losses), torch.cat(norms) if norms else torch.zeros(0))


def gradient_descent(
    loss: Callable[[Tensors], torch.Tensor],
    x: Tensors,
    iterations: int,
    *,
    step: float,
    momentum: float = 0.0,
) -> Optimum:
    """Minimise a scalar by ``d = gradient + momentum d``, ``x -= step d``."""
    losses: list[torch.Tensor] = []
    direction: Tensors | None = None
    for _ in range(iterations):
        with _gradients(x) as variable:
            value = loss(variable)
            gradient = torch.autograd.grad(value, variable)
        losses.append(value.detach())
        direction = gradient if direction is None else _add(gradient, direction, momentum)
        x = _add(x, direction, -step)
    return Optimum(x, _row(losses), torch.zeros(0))


def steepest_descent(residuals: Callable[[Tensors], Tensors], x: Tensors, iterations: int) -> Optimum:
    """Minimise ``|r(x)|^2`` by gradient steps of the length that is best for the linearised residuals,
    ``<g, g> / |J g|^2`` (Bhat et al., DiMP, ICCV 2019, 3.3)."""
    return gauss_newton(residuals, x, [1] * iterations)


def square(values: Tensors) -> torch.Tensor:
    """``|values|^2``, the loss of residuals."""
    return torch.stack([(value * value).sum() for value in values]).sum()


@contextlib.contextmanager
def _gradients(x: Tensors) -> Iterator[Tensors]:
    """A copy of ``x`` that gradients can be taken of."""
    with torch.inference_mode(False), torch.enable_grad():
        yield tuple(part.detach().clone().requires_grad_() for part in x)


def _ratio(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``a / b``, 0 where ``b`` is."""
    return torch.where(b == 0, torch.zeros_like(b), a / b)


def _add(x: Tensors, y: Tensors, factor: float | Sequence[torch.Tensor | float] = 1.0) -> Tensors:
    factors = factor if isinstance(factor, (tuple, list)) else (factor,) * len(x)
    return tuple(a + b * f for a, b, f in zip(x, y, factors))


def _row(values: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(values) if values else torch.zeros(0)
