"""The optimisers against linear algebra, and that they never wait for the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ltr.ops.optimization import (
    conjugate_gradient,
    gauss_newton,
    gradient_descent,
    newton,
    square,
    steepest_descent,
)

seeds, sizes = st.integers(0, 2**32 - 1), st.integers(1, 6)


def positive(seed: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A well-conditioned positive matrix and a right-hand side, float64."""
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(size, size))
    return torch.from_numpy(half @ half.T + size * np.eye(size)), torch.from_numpy(rng.normal(size=size))


def regression(seed: int, size: int):
    """Residuals of a linear problem in two parts, and its answer."""
    rng = np.random.default_rng(seed)
    matrix, target = (torch.from_numpy(rng.normal(size=s)) for s in ((2 * size + 5, size + 1), 2 * size + 5))

    def residuals(x):
        return (matrix @ torch.cat([x[0], x[1]]) - target,)

    answer = torch.linalg.lstsq(matrix, target[:, None]).solution[:, 0]
    return residuals, (torch.zeros(1).double(), torch.zeros(size).double()), answer


class Waits(TorchDispatchMode):
    """Fails where a value would have to come to the host."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        assert operator not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return operator(*args, **(kwargs or {}))


@given(seeds, sizes, st.booleans(), st.booleans())
def test_conjugate_gradient_solves_in_as_many_steps_as_unknowns(seed, size, fletcher_reeves, exact):
    matrix, right = positive(seed, size)
    found = conjugate_gradient(
        lambda x: (matrix @ x[0],), (right,), size + 1, fletcher_reeves=fletcher_reeves, exact_step=exact
    )
    assert torch.allclose(found.x[0], torch.linalg.solve(matrix, right), rtol=1e-6, atol=1e-8)
    assert len(found.residual_norms) == size + 2
    assert torch.allclose(found.residual_norms[0], right.norm())


@given(seeds, sizes)
def test_the_right_preconditioner_solves_at_once(seed, size):
    matrix, right = positive(seed, size)
    inverse = torch.linalg.inv(matrix)
    found = conjugate_gradient(
        lambda x: (matrix @ x[0],), (right,), 1, precondition=lambda r: (inverse @ r[0],)
    )
    assert torch.allclose(found.x[0], inverse @ right, rtol=1e-6, atol=1e-8)


@given(seeds, st.integers(2, 6), st.integers(1, 5))
def test_independent_variables_are_solved_as_if_alone(seed, size, steps):
    problems = [positive(seed, size), positive(seed + 1, size)]

    def both(x):
        return tuple(matrix @ part for (matrix, _), part in zip(problems, x))

    together = conjugate_gradient(
        both,
        tuple(right for _, right in problems),
        steps,
        inner=lambda a, b: tuple(u @ v for u, v in zip(a, b)),
    )
    for (matrix, right), part in zip(problems, together.x):
        alone = conjugate_gradient(lambda x, matrix=matrix: (matrix @ x[0],), (right,), steps)
        assert torch.allclose(part, alone.x[0], rtol=1e-6, atol=1e-9)


@given(seeds, st.integers(3, 6))
def test_what_is_below_the_tolerance_stays(seed, size):
    matrix, right = positive(seed, size)
    norms = conjugate_gradient(lambda x: (matrix @ x[0],), (right,), size).residual_norms
    assume(norms[1] < norms[0])  # an iteration may well lengthen the residual
    tolerance = float(norms[1])
    found = conjugate_gradient(lambda x: (matrix @ x[0],), (right,), size, tolerance=tolerance)
    one = conjugate_gradient(lambda x: (matrix @ x[0],), (right,), 1)
    assert torch.equal(found.x[0], one.x[0])


def test_nothing_to_solve_gives_zeros():
    found = conjugate_gradient(lambda x: x, (torch.zeros(3),), 4)
    assert torch.equal(found.x[0], torch.zeros(3)) and not found.residual_norms.any()


@given(seeds, sizes)
def test_gauss_newton_solves_linear_problems(seed, size):
    residuals, start, answer = regression(seed, size)
    found = gauss_newton(residuals, start, [size + 2])
    assert torch.allclose(torch.cat(found.x), answer, rtol=1e-5, atol=1e-7)
    assert torch.allclose(found.losses[0], square(residuals(start)))


@given(seeds, sizes)
def test_directions_that_are_kept_go_on_where_they_stopped(seed, size):
    residuals, start, _ = regression(seed, size)
    first = gauss_newton(residuals, start, [1])
    went_on = gauss_newton(residuals, first.x, [1], directions=first.directions, forgetting=1.0)
    at_once = gauss_newton(residuals, start, [2])
    assert torch.allclose(torch.cat(went_on.x), torch.cat(at_once.x), rtol=1e-6, atol=1e-9)
    forgotten = gauss_newton(residuals, first.x, [1], directions=first.directions)
    assert torch.allclose(
        torch.cat(forgotten.x), torch.cat(steepest_descent(residuals, start, 2).x), rtol=1e-6, atol=1e-9
    )


@given(seeds, sizes)
def test_descents_go_down(seed, size):
    residuals, start, _ = regression(seed, size)
    steep = steepest_descent(residuals, start, 5)
    losses = torch.cat([steep.losses, square(residuals(steep.x))[None]])
    assert (losses.diff() <= 1e-9 * losses[0]).all() and losses[1] < losses[0]
    slow = gradient_descent(lambda x: square(residuals(x)), start, 5, step=1e-4)
    assert (slow.losses.diff() < 0).all()


@given(seeds, sizes)
def test_newton_finds_the_minimum_of_a_parabola_at_once(seed, size):
    matrix, right = positive(seed, size)
    found = newton(
        lambda x: 0.5 * x[0] @ matrix @ x[0] - right @ x[0], (torch.zeros(size).double(),), [size + 1]
    )
    assert torch.allclose(found.x[0], torch.linalg.solve(matrix, right), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_nobody_else_needs_to_record_gradients(mode):
    residuals, start, answer = regression(0, 3)
    with mode():
        found = gauss_newton(residuals, tuple(part.clone() for part in start), [5])
    assert torch.allclose(torch.cat(found.x), answer, rtol=1e-5, atol=1e-7)
    assert not any(part.requires_grad for part in found.x)


def test_no_optimiser_waits_for_the_device():
    residuals, start, _ = regression(0, 3)
    with Waits():
        gauss_newton(residuals, start, [2, 2], fletcher_reeves=False, tolerance=1e-3)
        newton(lambda x: square(residuals(x)), start, [2, 2], damping=0.1, damping_decay=0.5)
        gradient_descent(lambda x: square(residuals(x)), start, 2, step=1e-3, momentum=0.5)
    with pytest.raises(AssertionError), Waits():
        float(start[0])
