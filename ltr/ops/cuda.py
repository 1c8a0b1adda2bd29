"""The operators of ``csrc``: their definitions, shapes and derivatives, and the library that holds their kernels.

The kernels are optional (docs/operators.md says how to build them) and run where they were built: having built them
is the only switch. What is defined here holds without them too, for any device that is given an implementation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from config.errors import UserError

Pair = tuple[int, int]
Gradients = tuple[torch.Tensor | None, ...]

SCHEMAS = {
    "prroi_pool": "(Tensor features, Tensor rois, int rows, int columns, float scale) -> Tensor",
    "prroi_pool_grad_features": "(Tensor grad, Tensor features, Tensor rois, float scale) -> Tensor",
    "prroi_pool_grad_rois": "(Tensor grad, Tensor features, Tensor rois, float scale) -> Tensor",
    "deform_columns": "(Tensor features, Tensor offset, Tensor? mask, int[] kernel, int[] stride, int[] padding, "
    "int[] dilation) -> Tensor",
    "deform_columns_grad": "(Tensor grad, Tensor features, Tensor offset, Tensor? mask, int[] kernel, int[] stride, "
    "int[] padding, int[] dilation) -> (Tensor, Tensor, Tensor)",
}
for _name, _schema in SCHEMAS.items():
    torch.library.define(f"spot::{_name}", _schema, tags=torch.Tag.pt2_compliant_tag)


@torch.compiler.assume_constant_result
def built() -> bool:
    """Whether the kernels were built; the first call loads them.

    Raises:
        UserError: they were built for another version of torch.
    """
    return _load(Path(__file__).parent)


@functools.cache
def _load(folder: Path) -> bool:
    for path in folder.glob("_kernels*.so"):
        try:
            torch.ops.load_library(path)
        except OSError as error:
            raise UserError(
                f"{path}: does not load with torch {torch.__version__} ({error}); delete it, or build it again with "
                "SPOT_BUILD_CUDA=1 python setup.py build_ext --inplace"
            ) from error
        return True
    return False


def usable(features: torch.Tensor) -> bool:
    """Whether there are kernels for this tensor."""
    return features.is_cuda and built()


def prroi_pool(
    features: torch.Tensor, rois: torch.Tensor, rows: int, columns: int, spatial_scale: float
) -> torch.Tensor:
    """``prroi_pool2d`` by the kernel: ``[B, C, H, W], [K, 5] -> [K, C, rows, columns]``."""
    kind = torch.promote_types(features.dtype, torch.float32)
    out = torch.ops.spot.prroi_pool(features.to(kind), rois.to(kind), rows, columns, spatial_scale)
    return out.to(features.dtype)


def deform_columns(
    features: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor | None,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> torch.Tensor:
    """The features under each kernel point of a deformable convolution, by the kernel.

    Returns:
        ``[C * kh * kw, B * H' * W']``, in the type of ``features``.
    """
    kind = torch.promote_types(features.dtype, torch.float32)
    factors = None if mask is None else mask.to(kind)
    columns = torch.ops.spot.deform_columns(
        features.to(kind), offset.to(kind), factors, kernel, stride, padding, dilation
    )
    return columns.to(features.dtype)


@torch.library.register_fake("spot::prroi_pool")
def _(features, rois, rows, columns, scale):
    return features.new_empty(rois.shape[0], features.shape[1], rows, columns)


@torch.library.register_fake("spot::prroi_pool_grad_features")
def _(grad, features, rois, scale):
    return features.new_empty(features.shape)


@torch.library.register_fake("spot::prroi_pool_grad_rois")
def _(grad, features, rois, scale):
    return rois.new_empty(rois.shape)


@torch.library.register_fake("spot::deform_columns")
def _(features, offset, mask, kernel, stride, padding, dilation):
    places = offset.shape[0] * offset.shape[2] * offset.shape[3]
    return features.new_empty(features.shape[1] * kernel[0] * kernel[1], places)


@torch.library.register_fake("spot::deform_columns_grad")
def _(grad, features, offset, mask, kernel, stride, padding, dilation):
    by_mask = features.new_empty(0) if mask is None else mask.new_empty(mask.shape)
    return features.new_empty(features.shape), offset.new_empty(offset.shape), by_mask


def _keep_pooling(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    features, rois, ctx.rows, ctx.columns, ctx.scale = inputs
    ctx.save_for_backward(features, rois)


def _pooling_backward(ctx: Any, grad: torch.Tensor) -> Gradients:
    features, rois = ctx.saved_tensors
    if torch.is_grad_enabled():
        return *_again(functools.partial(_plain_pool, ctx), (features, rois), grad), None, None, None
    for_features, for_rois = ctx.needs_input_grad[:2]
    call = torch.ops.spot
    return (
        call.prroi_pool_grad_features(grad, features, rois, ctx.scale) if for_features else None,
        call.prroi_pool_grad_rois(grad, features, rois, ctx.scale) if for_rois else None,
        None,
        None,
        None,
    )


def _plain_pool(ctx: Any, features: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
    from ltr.ops.prroi_pool import prroi_pool_plain  # which imports this module

    own = features.index_select(0, rois[:, 0].long())
    return prroi_pool_plain(own, rois[:, None, 1:], (ctx.rows, ctx.columns), ctx.scale)[:, 0]


def _keep_columns(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    features, offset, mask, *ctx.geometry = inputs
    ctx.save_for_backward(features, offset, mask)


def _columns_backward(ctx: Any, grad: torch.Tensor) -> Gradients:
    tensors = ctx.saved_tensors
    if torch.is_grad_enabled():
        found = _again(functools.partial(_plain_columns, ctx), tensors, grad)
    else:
        found = torch.ops.spot.deform_columns_grad(grad, *tensors, *ctx.geometry)
    kept = (value if needed else None for value, needed in zip(found, ctx.needs_input_grad[:3]))
    return *kept, None, None, None, None


def _plain_columns(
    ctx: Any, features: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    from ltr.ops.deform_conv import deform_columns_plain  # which imports this module

    columns = deform_columns_plain(features, offset, mask, *ctx.geometry)
    return columns.transpose(0, 1).flatten(1)


def _again(
    plain: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor | None, ...], grad: torch.Tensor
) -> Gradients:
    """Gradients by the plain path, which can be differentiated any number of times; the kernels cannot."""
    # Views, for an input may depend on another one, and only the direct way counts here.
    own = [None if value is None else value.view_as(value) for value in inputs]
    wanted = [value for value in own if value is not None and value.requires_grad]
    found = iter(torch.autograd.grad(plain(*own), wanted, grad, create_graph=True))
    return tuple(None if value is None or not value.requires_grad else next(found) for value in own)


torch.library.register_autograd("spot::prroi_pool", _pooling_backward, setup_context=_keep_pooling)
torch.library.register_autograd("spot::deform_columns", _columns_backward, setup_context=_keep_columns)
