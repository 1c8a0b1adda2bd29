// Deformable convolution up to its matrix product. Dai et al., ICCV 2017; with factors: Zhu et al., CVPR 2019.
//
// The features under each kernel point of each place of the output become columns [channels * taps, batch * places]:
// one product with the filters is then the convolution of the whole batch.
#pragma once

#include "common.h"

namespace spot {

// Channels that one thread serves: what a kernel point costs is paid once for all of them.
constexpr int SHARE = 16;

template <typename T>
struct Convolution {
  const T* features;  // [batch, channels, height, width]
  const T* offset;    // [batch, 2 * moves * taps, out_height, out_width]: down, right
  const T* mask;      // [batch, moves * taps, out_height, out_width], or none
  int batch, channels, height, width, moves, out_height, out_width;
  int kernel[2], stride[2], padding[2], dilation[2];  // rows, columns

  SPOT_BOTH int taps() const { return kernel[0] * kernel[1]; }
  SPOT_BOTH int places() const { return out_height * out_width; }
  SPOT_BOTH int shares() const { return (channels / moves + SHARE - 1) / SHARE; }
  // Threads: one per group of offsets, share of its channels, kernel point, image and place.
  SPOT_BOTH int64_t threads() const { return int64_t(moves) * shares() * taps() * batch * places(); }
};

// What a thread works on: one kernel point in one place, and a share of the channels.
template <typename T>
struct Point {
  int image, tap, from, to;    // channels from, from + 1, ... to - 1
  int64_t column, move, factor;  // indices into the columns' axis, offset (that to the right is `places` on) and mask
  bool seen;                   // within a pixel of the map
  int corner[4];               // top left, top right, bottom left, bottom right: where in the map, -1 outside
  T y, x;                      // the way from the upper left one, 0 to 1

  SPOT_BOTH Point(const Convolution<T>& p, int index) {
    const int places = p.places(), taps = p.taps(), span = p.channels / p.moves;
    const int place = index % places;
    image = index / places % p.batch;
    tap = index / (places * p.batch) % taps;
    const int share = index / (places * p.batch * taps) % p.shares();
    const int group = index / (places * p.batch * taps) / p.shares();
    from = group * span + share * SHARE;
    to = least(from + SHARE, (group + 1) * span);
    column = int64_t(image) * places + place;
    factor = (int64_t(image) * p.moves * taps + group * taps + tap) * places + place;
    move = 2 * (factor - place) + place;
    const T down = place / p.out_width * p.stride[0] - p.padding[0] + tap / p.kernel[1] * p.dilation[0] +
                   p.offset[move];
    const T right = place % p.out_width * p.stride[1] - p.padding[1] + tap % p.kernel[1] * p.dilation[1] +
                    p.offset[move + places];
    seen = down >= -1 && down < p.height && right >= -1 && right < p.width;
    if (!seen) return;
    const int row = static_cast<int>(std::floor(down)), start = static_cast<int>(std::floor(right));
    y = down - row;
    x = right - start;
    const bool above = row >= 0, below = row + 1 < p.height, before = start >= 0, after = start + 1 < p.width;
    const int first = row * p.width + start;
    corner[0] = above && before ? first : -1;
    corner[1] = above && after ? first + 1 : -1;
    corner[2] = below && before ? first + p.width : -1;
    corner[3] = below && after ? first + p.width + 1 : -1;
  }

  SPOT_BOTH T weight(int i) const { return (i / 2 ? y : 1 - y) * (i % 2 ? x : 1 - x); }
  SPOT_BOTH T pixel(const T* map, int i) const { return corner[i] < 0 ? T(0) : map[corner[i]]; }
};

// Numbers of the columns for thread `index`.
template <typename T>
SPOT_BOTH void gather(const Convolution<T>& p, T* columns, int index) {
  const Point<T> point(p, index);
  const int64_t width = int64_t(p.batch) * p.places();
  T weight[4] = {};
  if (point.seen) {
    const T factor = p.mask ? p.mask[point.factor] : T(1);
    for (int i = 0; i < 4; ++i) weight[i] = factor * point.weight(i);
  }
  for (int c = point.from; c < point.to; ++c) {
    T value = 0;
    if (point.seen) {
      const T* map = p.features + (int64_t(point.image) * p.channels + c) * p.height * p.width;
      for (int i = 0; i < 4; ++i) value += weight[i] * point.pixel(map, i);
    }
    columns[(int64_t(c) * p.taps() + point.tap) * width + point.column] = value;
  }
}

// Gradients of features, offset and (where there is one) mask, all of which begin as zeros, for thread `index`.
template <typename T>
SPOT_BOTH void scatter(const Convolution<T>& p, const T* grad, T* grad_features, T* grad_offset, T* grad_mask,
                       int index) {
  const Point<T> point(p, index);
  if (!point.seen) return;
  const int64_t width = int64_t(p.batch) * p.places();
  const T factor = p.mask ? p.mask[point.factor] : T(1);
  T by_y = 0, by_x = 0, by_factor = 0;
  for (int c = point.from; c < point.to; ++c) {
    const T g = grad[(int64_t(c) * p.taps() + point.tap) * width + point.column];
    const int64_t start = (int64_t(point.image) * p.channels + c) * p.height * p.width;
    T value[4];
    for (int i = 0; i < 4; ++i) {
      value[i] = point.pixel(p.features + start, i);
      by_factor += g * point.weight(i) * value[i];
      if (point.corner[i] >= 0) add(grad_features + start + point.corner[i], g * factor * point.weight(i));
    }
    by_y += g * ((value[2] - value[0]) * (1 - point.x) + (value[3] - value[1]) * point.x);
    by_x += g * ((value[1] - value[0]) * (1 - point.y) + (value[3] - value[2]) * point.y);
  }
  add(grad_offset + point.move, factor * by_y);
  add(grad_offset + point.move + p.places(), factor * by_x);
  if (p.mask) add(grad_mask + point.factor, by_factor);
}

}  // namespace spot
