// The kernels as the binding calls them: each is given to the stream and does not wait. T is float or double.
#pragma once

#include <cuda_runtime_api.h>

#include "deform_columns.h"
#include "prroi_pool.h"

namespace spot {

// out: [regions, channels, rows, columns].
template <typename T>
void prroi_pool(const Pooling<T>& p, T* out, cudaStream_t stream);

// grad: as out; grad_features: as the features, zeros before.
template <typename T>
void prroi_pool_grad_features(const Pooling<T>& p, const T* grad, T* grad_features, cudaStream_t stream);

// grad_rois: [regions, 5].
template <typename T>
void prroi_pool_grad_rois(const Pooling<T>& p, const T* grad, T* grad_rois, cudaStream_t stream);

// columns: [channels * taps, batch * places].
template <typename T>
void deform_columns(const Convolution<T>& p, T* columns, cudaStream_t stream);

// grad: as columns; the others as what they are gradients of, zeros before; no grad_mask without a mask.
template <typename T>
void deform_columns_grad(const Convolution<T>& p, const T* grad, T* grad_features, T* grad_offset, T* grad_mask,
                         cudaStream_t stream);

}  // namespace spot
