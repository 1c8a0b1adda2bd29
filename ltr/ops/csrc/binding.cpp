// Gives the kernels to the operators that ltr/ops/cuda.py defines in the namespace spot, for tensors on CUDA.
#include <limits>
#include <optional>
#include <tuple>

#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels.h"

namespace spot {
namespace {

using at::Tensor;
using Sizes = at::IntArrayRef;

int narrow(int64_t number) {
  TORCH_CHECK_VALUE(number <= std::numeric_limits<int>::max(), number, " threads: fewer than 2 ** 31 are possible");
  return static_cast<int>(number);
}

void check_alike(const char* name, const Tensor& tensor, const Tensor& features) {
  TORCH_CHECK_VALUE(tensor.device() == features.device() && tensor.scalar_type() == features.scalar_type(), name, " is ",
                    tensor.scalar_type(), " on ", tensor.device(), ", the features are ", features.scalar_type(), " on ",
                    features.device());
}

void check_shape(const char* name, const Tensor& tensor, Sizes shape) {
  TORCH_CHECK_VALUE(tensor.sizes() == shape, name, " ", tensor.sizes(), ": ", shape, " is needed");
}

// The sum's order differs from run to run where threads add to the same number.
void refuse_if_deterministic(const char* name) { at::globalContext().alertNotDeterministic(name); }

Tensor whole_zeros(const Tensor& like) { return at::zeros_like(like, at::MemoryFormat::Contiguous); }

template <typename T>
Pooling<T> pooling(const Tensor& features, const Tensor& rois, int64_t rows, int64_t columns, double scale) {
  Pooling<T> p{features.const_data_ptr<T>(), rois.const_data_ptr<T>(),  narrow(features.size(0)),
               narrow(features.size(1)),     narrow(features.size(2)),  narrow(features.size(3)),
               narrow(rois.size(0)),         narrow(rows),              narrow(columns),
               static_cast<T>(scale)};
  narrow(p.outputs());
  narrow(p.strips());
  return p;
}

void check_pooling(const Tensor& features, const Tensor& rois) {
  TORCH_CHECK_VALUE(features.dim() == 4 && rois.dim() == 2 && rois.size(1) == 5, "features ", features.sizes(),
                    " and rois ", rois.sizes(), ": [B, C, H, W] and [K, 5] are needed");
  check_alike("rois", rois, features);
}

Tensor pool(const Tensor& features_, const Tensor& rois_, int64_t rows, int64_t columns, double scale) {
  check_pooling(features_, rois_);
  const c10::cuda::CUDAGuard guard(features_.device());
  const Tensor features = features_.contiguous(), rois = rois_.contiguous();
  const Tensor out = at::empty({rois.size(0), features.size(1), rows, columns}, features.options());
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "spot::prroi_pool", [&] {
    const auto p = pooling<scalar_t>(features, rois, rows, columns, scale);
    prroi_pool(p, out.mutable_data_ptr<scalar_t>(), c10::cuda::getCurrentCUDAStream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

void check_pooling_grad(const Tensor& grad, const Tensor& features, const Tensor& rois) {
  check_pooling(features, rois);
  TORCH_CHECK_VALUE(grad.dim() == 4, "grad ", grad.sizes(), ": [K, C, rows, columns] is needed");
  check_shape("grad", grad, {rois.size(0), features.size(1), grad.size(2), grad.size(3)});
  check_alike("grad", grad, features);
}

Tensor pool_grad_features(const Tensor& grad_, const Tensor& features_, const Tensor& rois_, double scale) {
  check_pooling_grad(grad_, features_, rois_);
  refuse_if_deterministic("spot::prroi_pool_grad_features");
  const c10::cuda::CUDAGuard guard(features_.device());
  const Tensor grad = grad_.contiguous(), rois = rois_.contiguous();
  const Tensor out = whole_zeros(features_);
  AT_DISPATCH_FLOATING_TYPES(features_.scalar_type(), "spot::prroi_pool_grad_features", [&] {
    const auto p = pooling<scalar_t>(features_, rois, grad.size(2), grad.size(3), scale);  // reads no feature
    prroi_pool_grad_features(p, grad.const_data_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>(),
                             c10::cuda::getCurrentCUDAStream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

Tensor pool_grad_rois(const Tensor& grad_, const Tensor& features_, const Tensor& rois_, double scale) {
  check_pooling_grad(grad_, features_, rois_);
  const c10::cuda::CUDAGuard guard(features_.device());
  const Tensor grad = grad_.contiguous(), features = features_.contiguous(), rois = rois_.contiguous();
  const Tensor out = at::empty(rois.sizes(), rois.options());
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "spot::prroi_pool_grad_rois", [&] {
    const auto p = pooling<scalar_t>(features, rois, grad.size(2), grad.size(3), scale);
    prroi_pool_grad_rois(p, grad.const_data_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>(),
                         c10::cuda::getCurrentCUDAStream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

template <typename T>
Convolution<T> convolution(const Tensor& features, const Tensor& offset, const Tensor& mask, Sizes kernel, Sizes stride,
                           Sizes padding, Sizes dilation) {
  Convolution<T> p{features.const_data_ptr<T>(),
                   offset.const_data_ptr<T>(),
                   mask.defined() ? mask.const_data_ptr<T>() : nullptr,
                   narrow(features.size(0)),
                   narrow(features.size(1)),
                   narrow(features.size(2)),
                   narrow(features.size(3)),
                   narrow(offset.size(1) / (2 * kernel[0] * kernel[1])),
                   narrow(offset.size(2)),
                   narrow(offset.size(3)),
                   {narrow(kernel[0]), narrow(kernel[1])},
                   {narrow(stride[0]), narrow(stride[1])},
                   {narrow(padding[0]), narrow(padding[1])},
                   {narrow(dilation[0]), narrow(dilation[1])}};
  narrow(p.threads());
  return p;
}

// All that keeps a thread within its tensors; whether offset and features belong together is the caller's to see.
void check_convolution(const Tensor& features, const Tensor& offset, const Tensor& mask, Sizes kernel, Sizes stride,
                       Sizes padding, Sizes dilation) {
  TORCH_CHECK_VALUE(kernel.size() == 2 && stride.size() == 2 && padding.size() == 2 && dilation.size() == 2,
                    "kernel, stride, padding and dilation: (rows, columns) each are needed");
  const int64_t taps = kernel[0] * kernel[1];
  const bool fits = features.dim() == 4 && offset.dim() == 4 && taps > 0 && offset.size(0) == features.size(0) &&
                    offset.size(1) >= 2 * taps && offset.size(1) % (2 * taps) == 0 &&
                    features.size(1) % (offset.size(1) / (2 * taps)) == 0;
  TORCH_CHECK_VALUE(fits, "features ", features.sizes(), ", offset ", offset.sizes(), " and kernel ", kernel,
                    " do not fit");
  check_alike("offset", offset, features);
  if (mask.defined()) {
    check_shape("mask", mask, {offset.size(0), offset.size(1) / 2, offset.size(2), offset.size(3)});
    check_alike("mask", mask, features);
  }
}

Tensor given(const std::optional<Tensor>& mask) { return mask && mask->defined() ? mask->contiguous() : Tensor(); }

int64_t points(Sizes kernel) { return kernel[0] * kernel[1]; }

Tensor columns(const Tensor& features_, const Tensor& offset_, const std::optional<Tensor>& mask_, Sizes kernel,
               Sizes stride, Sizes padding, Sizes dilation) {
  const c10::cuda::CUDAGuard guard(features_.device());
  const Tensor features = features_.contiguous(), offset = offset_.contiguous(), mask = given(mask_);
  check_convolution(features, offset, mask, kernel, stride, padding, dilation);
  const Tensor out = at::empty(
      {features.size(1) * points(kernel), offset.size(0) * offset.size(2) * offset.size(3)}, features.options());
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "spot::deform_columns", [&] {
    const auto p = convolution<scalar_t>(features, offset, mask, kernel, stride, padding, dilation);
    deform_columns(p, out.mutable_data_ptr<scalar_t>(), c10::cuda::getCurrentCUDAStream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

std::tuple<Tensor, Tensor, Tensor> columns_grad(const Tensor& grad_, const Tensor& features_, const Tensor& offset_,
                                                const std::optional<Tensor>& mask_, Sizes kernel, Sizes stride,
                                                Sizes padding, Sizes dilation) {
  refuse_if_deterministic("spot::deform_columns_grad");
  const c10::cuda::CUDAGuard guard(features_.device());
  const Tensor grad = grad_.contiguous(), features = features_.contiguous(), offset = offset_.contiguous();
  const Tensor mask = given(mask_);
  check_convolution(features, offset, mask, kernel, stride, padding, dilation);
  check_shape("grad", grad, {features.size(1) * points(kernel), offset.size(0) * offset.size(2) * offset.size(3)});
  check_alike("grad", grad, features);
  const Tensor by_features = whole_zeros(features), by_offset = whole_zeros(offset);
  const Tensor by_mask = mask.defined() ? whole_zeros(mask) : at::zeros({0}, features.options());
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "spot::deform_columns_grad", [&] {
    const auto p = convolution<scalar_t>(features, offset, mask, kernel, stride, padding, dilation);
    deform_columns_grad(p, grad.const_data_ptr<scalar_t>(), by_features.mutable_data_ptr<scalar_t>(),
                        by_offset.mutable_data_ptr<scalar_t>(), by_mask.mutable_data_ptr<scalar_t>(),
                        c10::cuda::getCurrentCUDAStream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {by_features, by_offset, by_mask};
}

}  // namespace
}  // namespace spot

TORCH_LIBRARY_IMPL(spot, CUDA, m) {
  m.impl("prroi_pool", &spot::pool);
  m.impl("prroi_pool_grad_features", &spot::pool_grad_features);
  m.impl("prroi_pool_grad_rois", &spot::pool_grad_rois);
  m.impl("deform_columns", &spot::columns);
  m.impl("deform_columns_grad", &spot::columns_grad);
}
