"""Filters of sequences, functions of the distance, normalisation, and the optimisation of a target's filter."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ltr.models.layers.activation import BentIdentPar, LeakyReLUPar
from ltr.models.layers.distance import radial_functions
from ltr.models.layers.filter import apply_filter, apply_transpose, score_size
from ltr.models.layers.normalization import InstanceL2Norm
from ltr.models.target_classifier.optimizer import DiMPOptimizer, HingeOptimizer, PrDiMPOptimizer, centres
from ltr.models.target_classifier.residual_modules import HingeResidual, KLDivergence, SquaredError

# -- filters --------------------------------------------------------------------------------------

shapes = st.tuples(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(5, 9), st.integers(5, 9)
)


@settings(max_examples=40)
@given(
    shapes, st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.integers(1, 2), st.integers(0, 999)
)
def test_filters_are_convolutions_of_each_sequence_and_have_that_transpose(
    shape, rows, columns, several, dilation, seed
):
    if 1 in (rows, columns):
        dilation = 1
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(*shape, generator=generator, dtype=torch.float64)
    size = (shape[1], *([several] if several else []), shape[2], rows, columns)
    filters = torch.randn(*size, generator=generator, dtype=torch.float64)
    scores = apply_filter(features, filters, dilation)
    assert scores.shape[-2:] == score_size(shape[-2:], (rows, columns), dilation)
    padding = [taps // 2 + dilation - 1 for taps in (rows, columns)]
    for sequence in range(shape[1]):
        own = filters[sequence] if several else filters[sequence, None]
        expected = F.conv2d(features[:, sequence], own, padding=padding, dilation=dilation)
        found = scores[:, sequence] if several else scores[:, sequence, None]
        assert torch.allclose(found, expected, atol=1e-10)
    other = torch.randn(scores.shape, generator=generator, dtype=torch.float64)
    back = apply_transpose(features, other, (rows, columns), dilation)
    assert back.shape == filters.shape
    assert torch.allclose((back * filters).sum(), (other * scores).sum(), atol=1e-9)


def test_scores_of_sixteen_bit_features_are_summed_in_float32():
    features, filters = torch.rand(2, 3, 8, 6, 6), torch.rand(3, 8, 4, 4)
    exact = apply_filter(features.bfloat16().float(), filters.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = apply_filter(features, filters)
    assert rounded.dtype == torch.float32
    assert torch.allclose(rounded, exact, rtol=0.01)


@settings(max_examples=30)
@given(st.integers(2, 8), st.floats(0.1, 2), st.integers(0, 999))
def test_functions_of_the_distance_are_sums_of_triangular_bins(bins, spacing, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, bins, generator=generator, dtype=torch.float64).requires_grad_()
    centre = torch.rand(3, 2, generator=generator, dtype=torch.float64) * 12 - 3
    centre[0] = centre[0].round()  # exactly on a cell
    found = radial_functions(values, spacing, centre, (5, 6))
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    away = (
        (rows - centre[:, 0, None, None]) ** 2 + (columns - centre[:, 1, None, None]) ** 2
    ).sqrt() / spacing
    knots = torch.arange(bins)[:, None, None, None]
    triangles = (1 - (away - knots).abs()).clamp(min=0)
    triangles[-1] = (1 + away - (bins - 1)).clamp(0, 1)
    expected = torch.einsum("mk,knyx->mnyx", values, triangles)
    assert torch.allclose(found, expected, atol=1e-9)
    upstream = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad(maps, values, upstream)[0] for maps in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-9)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1e30])
def test_targets_that_are_nowhere_are_far_away(bad):
    maps = radial_functions(torch.tensor([[1.0, 0.5, 0.25]]), 1.0, torch.tensor([[bad, 2.0]]), (4, 4))
    assert (maps == 0.25).all()


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(1, 8), st.floats(1e-3, 1e3), st.booleans())
def test_normalised_features_have_the_norm_they_should(images, channels, size, mean):
    x = torch.randn(images, channels, 3, 4, generator=torch.Generator().manual_seed(channels)) * size
    before, after = (value.square().sum((1, 2, 3)) for value in (x, InstanceL2Norm(0.3, mean=mean)(x)))
    expected = 0.3 * (math.sqrt(channels * 12) if mean else 1) * (before / (before + 1e-5)).sqrt()
    assert torch.allclose(after.sqrt(), expected, rtol=1e-4)


# -- optimisation ---------------------------------------------------------------------------------


def objectives(frames: int, sequences: int, size: tuple[int, int], seed: int = 0):
    """One of each kind, with random numbers of float64."""
    generator = torch.Generator().manual_seed(seed)
    label, mask, weight = torch.rand(3, frames, sequences, *size, generator=generator, dtype=torch.float64)
    density = label / label.sum((2, 3), keepdim=True)
    return [
        SquaredError(label, mask, weight, LeakyReLUPar()),
        SquaredError(label, mask, weight, BentIdentPar(0.3)),
        KLDivergence(density, weight[:, :, :1, :1]),
    ]


@pytest.mark.parametrize("number", range(3))
def test_slope_and_curvature_are_derivatives_of_the_value(number):
    objective = objectives(3, 2, (4, 5))[number]
    generator = torch.Generator().manual_seed(1)
    scores, along = torch.randn(2, 3, 2, 4, 5, generator=generator, dtype=torch.float64)
    squared = isinstance(objective, SquaredError)
    scores.requires_grad_()
    [gradient] = torch.autograd.grad(objective.value(scores).sum(), scores)
    assert torch.allclose(objective.slope(scores), gradient / 2 if squared else gradient)
    if squared:  # of the linearised residuals

        def residuals(x):
            return objective.weight * (objective.activation.value(x, objective.mask) - objective.label)

        _, change = torch.func.jvp(residuals, (scores.detach(),), (along,))
        expected = change.square().sum((0, 2, 3))
    else:
        _, change = torch.func.jvp(objective.slope, (scores.detach(),), (along,))
        expected = (change * along).sum((0, 2, 3))
    assert torch.allclose(objective.curvature(scores, along), expected)


def optimizers(kind: torch.dtype = torch.float64) -> list[nn.Module]:
    """One of each kind, with parameters unlike each other."""
    common = {"num_iter": 4, "stride": 16, "init_step_length": 0.8, "init_filter_reg": 0.3}
    torch.manual_seed(0)
    dimp = DiMPOptimizer(
        **common, init_gauss_sigma=0.9, num_dist_bins=20, bin_displacement=0.3, mask_init_factor=3.0
    )
    with torch.no_grad():
        dimp.spatial_weight_predictor.weight.uniform_(0.5, 1.5)
    prdimp = PrDiMPOptimizer(
        **common, min_filter_reg=0.05, gauss_sigma=0.9, alpha_eps=0.05, normalize_label=True
    )
    hinge = HingeOptimizer(num_iter=4, residual=HingeResidual(init_filter_reg=0.3, threshold=0.05, leak=0.1))
    return [optimizer.to(kind) for optimizer in (dimp, prdimp, hinge)]


def problem(
    frames: int = 3, sequences: int = 2, kernel: int = 4, kind: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Arguments of an optimiser."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(frames, sequences, generator=generator, dtype=kind) + 0.1
    side = 7 + (kernel + 1) % 2
    return {
        "filter": torch.randn(sequences, 5, kernel, kernel, generator=generator, dtype=kind),
        "features": torch.randn(frames, sequences, 5, 7, 7, generator=generator, dtype=kind) / 4,
        "bboxes": torch.rand(frames, sequences, 4, generator=generator, dtype=kind) * 40 + 20,
        "labels": torch.rand(frames, sequences, side, side, generator=generator, dtype=kind) ** 4,
        "sample_weight": weight / weight.sum(0),
    }


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_each_iteration_is_the_step_that_the_docstring_gives(number, kernel):
    """Recomputed with autograd, from the loss alone, one sequence at a time."""
    optimizer, given = optimizers()[number], problem(kernel=kernel)
    found = optimizer(**given)
    assert len(found.filters) == 5 and torch.equal(found.filters[0], given["filter"])
    features, weight = given["features"], given["sample_weight"][:, :, None, None]
    size = score_size(features.shape[-2:], (kernel, kernel))
    objective = optimizer.objective(given["bboxes"], given["labels"], weight, (kernel, kernel), size)
    reg, half = optimizer.regularisation(), 0.5 if isinstance(objective, SquaredError) else 1.0
    for filter, following, loss in zip(found.filters.detach(), found.filters[1:], found.losses):
        filter.requires_grad_()
        value = objective.value(apply_filter(features, filter))
        squared_norm = filter.square().sum((1, 2, 3))
        assert torch.allclose(loss, value + reg * squared_norm)
        [gradient] = torch.autograd.grad((half * value + reg / 2 * squared_norm).sum(), filter)
        along = apply_filter(features, gradient)
        squared = gradient.square().sum((1, 2, 3))
        curvature = objective.curvature(apply_filter(features, filter), along)
        step = optimizer.step_factor() * squared / (curvature + (reg + optimizer.damping) * squared)
        assert torch.allclose(following, filter - step[:, None, None, None] * gradient, atol=1e-9)


@pytest.mark.parametrize("number", [0, 2])  # the divergence is not quadratic
def test_a_full_step_ends_where_a_quadratic_loss_is_least_on_its_line(number):
    optimizer, given = optimizers()[number], problem()
    with torch.no_grad():  # a mask of ones, so that the residuals are linear
        if number == 0:
            optimizer.log_step_length.zero_()
            optimizer.target_mask_predictor[0].weight.fill_(50)
        else:
            given["labels"] = given["labels"] + 0.1
    found = optimizer(**given, num_iter=1)
    first, second = found.filters
    losses = [
        optimizer(**{**given, "filter": first + share * (second - first)}, num_iter=0).losses[0]
        for share in (0.95, 1.0, 1.05)
    ]
    assert (losses[1] < losses[0]).all() and (losses[1] < losses[2]).all()
    assert torch.allclose(losses[0], losses[2])


@pytest.mark.parametrize("number", range(3))
def test_sequences_do_not_see_each_other_and_frames_have_no_order(number):
    optimizer, given = optimizers()[number], problem(frames=4, sequences=3)
    together = optimizer(**given)
    for sequence in range(3):
        own = {
            name: value[sequence, None] if name == "filter" else value[:, sequence, None]
            for name, value in given.items()
        }
        alone = optimizer(**own)
        assert torch.allclose(alone.filters[:, 0], together.filters[:, sequence], atol=1e-12)
        assert torch.allclose(alone.losses[:, 0], together.losses[:, sequence], atol=1e-12)
    turned = {name: value if name == "filter" else value.flip(0) for name, value in given.items()}
    assert torch.allclose(optimizer(**turned).filters, together.filters, atol=1e-12)


@pytest.mark.parametrize("number", range(3))
def test_weights_of_frames_mean_what_they_say(number):
    """None is all alike, zero is absent, and a frame twice is a frame of twice the weight."""
    optimizer, given = optimizers()[number], problem(frames=3)
    given["sample_weight"] = torch.full((3, 2), 1 / 3, dtype=torch.float64)
    alike = optimizer(**given).filter
    assert torch.allclose(optimizer(**{**given, "sample_weight": None}).filter, alike)
    doubled = {name: value if name == "filter" else value[[0, 1, 1]] for name, value in given.items()}
    weights = torch.tensor([1 / 3, 2 / 3, 0.0], dtype=torch.float64)[:, None].expand(-1, 2)
    assert torch.allclose(
        optimizer(**{**given, "sample_weight": weights}).filter, optimizer(**doubled).filter
    )


@pytest.mark.parametrize("number", range(3))
def test_gradients_through_the_iterations_are_right(number):
    optimizer, given = optimizers()[number], problem(frames=2, sequences=1)
    features = given["features"].requires_grad_()
    parameters = [p for n, p in optimizer.named_parameters() if n.endswith(("reg", "step_length"))]

    def final(*inputs: torch.Tensor) -> torch.Tensor:
        return optimizer(**given, num_iter=2).filter

    assert torch.autograd.gradcheck(final, (features, *parameters), fast_mode=True)


def test_zero_features_move_nothing_and_stay_finite():
    for optimizer in optimizers():
        given = problem()
        given["features"].zero_()
        given["filter"].zero_()
        found = optimizer(**given)
        assert not found.filters.any() and found.losses.isfinite().all()


def test_optimisation_is_in_float32_under_autocast():
    for exact, optimizer in zip(optimizers(torch.float32), optimizers(torch.float32)):
        given = problem(kind=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = optimizer(**{**given, "features": given["features"].bfloat16()})
        plain = exact(**{**given, "features": given["features"].bfloat16().float()})
        assert rounded.filters.dtype == rounded.losses.dtype == torch.float32
        assert torch.equal(rounded.filters, plain.filters)


def test_wrong_labels_are_named():
    optimizer, given = optimizers()[2], problem()
    for labels, words in ((None, "labels None"), (given["labels"][..., :-1], r"labels \[3, 2, 8, 7\]")):
        with pytest.raises(ValueError, match=rf"{words}.*\[F, S, 8, 8\]"):
            optimizer(**{**given, "labels": labels})


@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_the_centre_of_a_box_is_where_a_filter_on_the_box_scores(kernel):
    """The filter whose taps are the features of a box scores highest at the cell next to the box's centre."""
    generator = torch.Generator().manual_seed(kernel)
    features = torch.randn(1, 1, 32, 12, 12, generator=generator)
    for top, left in ((2, 3), (5, 6)):
        filter = features[:, 0, :, top : top + kernel, left : left + kernel]
        box = torch.tensor([16.0 * left, 16.0 * top, 16.0 * kernel, 16.0 * kernel])
        row, column = divmod(int(apply_filter(features, filter).argmax()), 12 + (kernel + 1) % 2)
        assert centres(box, 16, (kernel, kernel)).tolist() == [row, column]
