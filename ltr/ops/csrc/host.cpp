// The kernels' arithmetic as a plain shared library: loops over the threads a GPU would run. For the tests.
//
// sizes of pooling: images, channels, height, width, regions, rows, columns.
// sizes of convolution: batch, channels, height, width, moves, out_height, out_width, then kernel, stride, padding and
// dilation, (rows, columns) each.
#include "deform_columns.h"
#include "prroi_pool.h"

namespace {

template <typename T>
spot::Pooling<T> pooling(const T* features, const T* rois, const int* s, double scale) {
  return {features, rois, s[0], s[1], s[2], s[3], s[4], s[5], s[6], static_cast<T>(scale)};
}

template <typename T>
spot::Convolution<T> convolution(const T* features, const T* offset, const T* mask, const int* s) {
  return {features, offset,       mask,         s[0],           s[1],          s[2], s[3], s[4], s[5], s[6],
          {s[7], s[8]}, {s[9], s[10]}, {s[11], s[12]}, {s[13], s[14]}};
}

}  // namespace

#define SPOT_EXPORT(T, suffix)                                                                                    \
  extern "C" void prroi_pool_##suffix(const T* features, const T* rois, const int* sizes, double scale, T* out) { \
    const auto p = pooling(features, rois, sizes, scale);                                                         \
    for (int64_t i = 0; i < p.outputs(); ++i) out[i] = spot::pooled(p, i);                                        \
  }                                                                                                               \
  extern "C" void prroi_pool_grad_features_##suffix(const T* grad, const T* features, const T* rois,              \
                                                    const int* sizes, double scale, T* out) {                     \
    const auto p = pooling(features, rois, sizes, scale);                                                         \
    for (int64_t i = 0; i < p.strips(); ++i) spot::spread(p, grad, out, i);                                       \
  }                                                                                                               \
  extern "C" void prroi_pool_grad_rois_##suffix(const T* grad, const T* features, const T* rois,                  \
                                                const int* sizes, double scale, T* out) {                         \
    const auto p = pooling(features, rois, sizes, scale);                                                         \
    for (int k = 0; k < p.regions; ++k) {                                                                         \
      for (int i = 0; i < p.per_region(); ++i) spot::corners(p, grad, k, i, out + 5 * k + 1);                     \
    }                                                                                                             \
  }                                                                                                               \
  extern "C" void deform_columns_##suffix(const T* features, const T* offset, const T* mask, const int* sizes,    \
                                          T* out) {                                                               \
    const auto p = convolution(features, offset, mask, sizes);                                                    \
    for (int64_t i = 0; i < p.threads(); ++i) spot::gather(p, out, i);                                            \
  }                                                                                                               \
  extern "C" void deform_columns_grad_##suffix(const T* grad, const T* features, const T* offset, const T* mask,  \
                                               const int* sizes, T* grad_features, T* grad_offset,                \
                                               T* grad_mask) {                                                    \
    const auto p = convolution(features, offset, mask, sizes);                                                    \
    for (int64_t i = 0; i < p.threads(); ++i) spot::scatter(p, grad, grad_features, grad_offset, grad_mask, i);   \
  }
SPOT_EXPORT(float, float32)
SPOT_EXPORT(double, float64)
