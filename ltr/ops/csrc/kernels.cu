// Threads for the arithmetic of the headers. Free of torch, whose headers take most of the time to compile.
#include "kernels.h"

namespace spot {
namespace {

constexpr int THREADS = 256;

unsigned blocks(int64_t threads) { return static_cast<unsigned>((threads + THREADS - 1) / THREADS); }

__device__ unsigned thread() { return blockIdx.x * THREADS + threadIdx.x; }

template <typename T>
__global__ void pool(Pooling<T> p, unsigned threads, T* out) {
  if (thread() < threads) out[thread()] = pooled(p, thread());
}

template <typename T>
__global__ void pool_features(Pooling<T> p, unsigned threads, const T* grad, T* grad_features) {
  if (thread() < threads) spread(p, grad, grad_features, thread());
}

// A block per region: the sum comes out the same every time, and no two threads wait for each other's addition.
template <typename T>
__global__ void pool_rois(Pooling<T> p, const T* grad, T* grad_rois) {
  __shared__ T shared[4][THREADS];
  T sums[4] = {};
  const int items = p.per_region();
  for (int item = threadIdx.x; item < items; item += THREADS) corners(p, grad, blockIdx.x, item, sums);
  for (int i = 0; i < 4; ++i) shared[i][threadIdx.x] = sums[i];
  for (int half = THREADS / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      for (int i = 0; i < 4; ++i) shared[i][threadIdx.x] += shared[i][threadIdx.x + half];
    }
  }
  if (threadIdx.x == 0) {
    T* own = grad_rois + int64_t(blockIdx.x) * 5;
    own[0] = 0;
    for (int i = 0; i < 4; ++i) own[1 + i] = shared[i][0];
  }
}

template <typename T>
__global__ void deform_gather(Convolution<T> p, unsigned threads, T* columns) {
  if (thread() < threads) gather(p, columns, thread());
}

template <typename T>
__global__ void deform_scatter(Convolution<T> p, unsigned threads, const T* grad, T* grad_features, T* grad_offset,
                               T* grad_mask) {
  if (thread() < threads) scatter(p, grad, grad_features, grad_offset, grad_mask, thread());
}

}  // namespace

template <typename T>
void prroi_pool(const Pooling<T>& p, T* out, cudaStream_t stream) {
  const int64_t threads = p.outputs();
  if (threads) pool<<<blocks(threads), THREADS, 0, stream>>>(p, threads, out);
}

template <typename T>
void prroi_pool_grad_features(const Pooling<T>& p, const T* grad, T* grad_features, cudaStream_t stream) {
  const int64_t threads = p.strips();
  if (threads) pool_features<<<blocks(threads), THREADS, 0, stream>>>(p, threads, grad, grad_features);
}

template <typename T>
void prroi_pool_grad_rois(const Pooling<T>& p, const T* grad, T* grad_rois, cudaStream_t stream) {
  if (p.regions) pool_rois<<<p.regions, THREADS, 0, stream>>>(p, grad, grad_rois);
}

template <typename T>
void deform_columns(const Convolution<T>& p, T* columns, cudaStream_t stream) {
  const int64_t threads = p.threads();
  if (threads) deform_gather<<<blocks(threads), THREADS, 0, stream>>>(p, threads, columns);
}

template <typename T>
void deform_columns_grad(const Convolution<T>& p, const T* grad, T* grad_features, T* grad_offset, T* grad_mask,
                         cudaStream_t stream) {
  const int64_t threads = p.threads();
  if (threads) {
    deform_scatter<<<blocks(threads), THREADS, 0, stream>>>(p, threads, grad, grad_features, grad_offset, grad_mask);
  }
}

#define SPOT_MAKE(T)                                                                                       \
  template void prroi_pool<T>(const Pooling<T>&, T*, cudaStream_t);                                        \
  template void prroi_pool_grad_features<T>(const Pooling<T>&, const T*, T*, cudaStream_t);                \
  template void prroi_pool_grad_rois<T>(const Pooling<T>&, const T*, T*, cudaStream_t);                    \
  template void deform_columns<T>(const Convolution<T>&, T*, cudaStream_t);                                \
  template void deform_columns_grad<T>(const Convolution<T>&, const T*, T*, T*, T*, cudaStream_t);
SPOT_MAKE(float)
SPOT_MAKE(double)

}  // namespace spot
