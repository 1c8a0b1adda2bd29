// What the arithmetic of the kernels needs of either compiler. No header of torch or CUDA, so that a CPU can test it.
#pragma once

#include <cassert>
#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define SPOT_BOTH __host__ __device__ inline
#else
#define SPOT_BOTH inline
#endif

namespace spot {

// Adds to a number that other threads add to as well.
template <typename T>
SPOT_BOTH void add(T* place, T value) {
#ifdef __CUDA_ARCH__
  atomicAdd(place, value);
#else
  *place += value;
#endif
}

template <typename T>
SPOT_BOTH T least(T a, T b) {
  return a < b ? a : b;
}

template <typename T>
SPOT_BOTH T most(T a, T b) {
  return a < b ? b : a;
}

// A whole number within [low, high], whatever the value is: infinite, or none at all (then high).
template <typename T>
SPOT_BOTH int whole(T value, int low, int high) {
  return static_cast<int>(most(static_cast<T>(low), least(value, static_cast<T>(high))));
}

}  // namespace spot
