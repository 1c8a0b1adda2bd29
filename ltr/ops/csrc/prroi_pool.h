// Precise RoI pooling of single numbers. Jiang et al., Acquisition of Localization Confidence, ECCV 2018.
//
// A map is bilinear between its pixels and falls to zero one pixel outside. A bin's value is its mean over the bin:
// a sum over pixels of the mean of the pixel's hat function down the bin, times that across it, times the pixel.
#pragma once

#include "common.h"

namespace spot {

template <typename T>
struct Pooling {
  const T* features;  // [images, channels, height, width]
  const T* rois;      // [regions, 5]: image, x1, y1, x2, y2
  int images, channels, height, width, regions, rows, columns;
  T scale;  // px of the map per px of the regions

  // Threads: one per number of the output, per column of a region's share of the map, per number of a region.
  SPOT_BOTH int64_t outputs() const { return int64_t(regions) * channels * rows * columns; }
  SPOT_BOTH int64_t strips() const { return int64_t(regions) * channels * width; }
  SPOT_BOTH int per_region() const { return channels * rows * columns; }
};

// max(0, 1 - |t|)
template <typename T>
SPOT_BOTH T hat(T t) {
  return most(T(0), T(1) - std::fabs(t));
}

// One axis of a region: bins of equal size, in px of the map.
template <typename T>
struct Axis {
  T first, length;
  int bins, pixels;

  SPOT_BOTH T edge(int bin) const { return first + length * bin / bins; }
  SPOT_BOTH T size() const { return length / bins; }

  // The pixels whose hat reaches into (start, end).
  SPOT_BOTH int from_pixel(T start) const { return whole(std::floor(start), 0, pixels); }
  SPOT_BOTH int to_pixel(T end) const { return whole(std::ceil(end), -1, pixels - 1); }

  // The bins that a pixel's hat reaches into.
  SPOT_BOTH int from_bin(int pixel) const {
    return whole(std::floor((pixel - 1 - first) / size()), 0, bins);
  }
  SPOT_BOTH int to_bin(int pixel) const {
    return whole(std::floor((pixel + 1 - first) / size()), -1, bins - 1);
  }

  // Mean of a pixel's hat over a bin. Its two slopes are integrated apart, and divided by the width as it is rounded, so
  // that nothing cancels in a narrow bin.
  SPOT_BOTH T mean(int bin, int pixel) const {
    const T start = edge(bin) - pixel, end = edge(bin + 1) - pixel;
    if (!(end > start)) return hat(start);
    const T rise = most(start, T(-1)), top = least(end, T(0));
    const T fall = most(start, T(0)), foot = least(end, T(1));
    T area = 0;
    if (top > rise) area += (top - rise) * (1 + (top + rise) / 2);
    if (foot > fall) area += (foot - fall) * (1 - (foot + fall) / 2);
    return area / (end - start);
  }
};

template <typename T>
struct Region {
  int image;
  bool solid;  // has an area; others give 0 and take no gradient
  Axis<T> across, down;

  SPOT_BOTH Region(const Pooling<T>& p, int k) {
    const T* roi = p.rois + int64_t(k) * 5;
    image = static_cast<int>(roi[0]);
    assert(image >= 0 && image < p.images);
    across = {roi[1] * p.scale, (roi[3] - roi[1]) * p.scale, p.columns, p.width};
    down = {roi[2] * p.scale, (roi[4] - roi[2]) * p.scale, p.rows, p.height};
    solid = across.length > 0 && down.length > 0;
  }
};

// Number `index` of the output [regions, channels, rows, columns].
template <typename T>
SPOT_BOTH T pooled(const Pooling<T>& p, int index) {
  const int j = index % p.columns, i = index / p.columns % p.rows;
  const int c = index / (p.columns * p.rows) % p.channels;
  const Region<T> region(p, index / p.per_region());
  if (!region.solid) return 0;
  const Axis<T>&across = region.across, &down = region.down;
  const T* map = p.features + (int64_t(region.image) * p.channels + c) * p.height * p.width;
  const int left = across.from_pixel(across.edge(j)), right = across.to_pixel(across.edge(j + 1));
  const int bottom = down.to_pixel(down.edge(i + 1));
  T sum = 0;
  for (int y = down.from_pixel(down.edge(i)); y <= bottom; ++y) {
    T row = 0;
    for (int x = left; x <= right; ++x) row += across.mean(j, x) * map[y * p.width + x];
    sum += down.mean(i, y) * row;
  }
  return sum;
}

// Gradient of the features, for column x of the map, of one region and channel: `index` of [regions, channels, width].
template <typename T>
SPOT_BOTH void spread(const Pooling<T>& p, const T* grad, T* grad_features, int index) {
  const int x = index % p.width, c = index / p.width % p.channels, k = index / (p.width * p.channels);
  const Region<T> region(p, k);
  if (!region.solid) return;
  const Axis<T>&across = region.across, &down = region.down;
  const int from_j = across.from_bin(x), to_j = across.to_bin(x);
  if (from_j > to_j) return;
  const T* bins = grad + (int64_t(k) * p.channels + c) * p.rows * p.columns;
  T* map = grad_features + (int64_t(region.image) * p.channels + c) * p.height * p.width;
  const int bottom = down.to_pixel(down.edge(p.rows));
  for (int y = down.from_pixel(down.first); y <= bottom; ++y) {
    const int to_i = down.to_bin(y);
    T sum = 0;
    for (int i = down.from_bin(y); i <= to_i; ++i) {
      T row = 0;
      for (int j = from_j; j <= to_j; ++j) row += across.mean(j, x) * bins[i * p.columns + j];
      sum += down.mean(i, y) * row;
    }
    add(map + y * p.width + x, sum);
  }
}

// Adds to (x1, y1, x2, y2) the gradient of region k by its number `item` of [channels, rows, columns].
// The mean over (a, b) changes with b by (value at b - mean) / (b - a), with a by the opposite.
template <typename T>
SPOT_BOTH void corners(const Pooling<T>& p, const T* grad, int k, int item, T* sums) {
  const Region<T> region(p, k);
  if (!region.solid) return;
  const int j = item % p.columns, i = item / p.columns % p.rows, c = item / (p.columns * p.rows);
  const Axis<T>&across = region.across, &down = region.down;
  const T* map = p.features + (int64_t(region.image) * p.channels + c) * p.height * p.width;
  const T x_start = across.edge(j), x_end = across.edge(j + 1);
  const T y_start = down.edge(i), y_end = down.edge(i + 1);
  const int left = across.from_pixel(x_start), right = across.to_pixel(x_end);
  const int bottom = down.to_pixel(y_end);
  T mean = 0, at_left = 0, at_right = 0, at_top = 0, at_bottom = 0;
  for (int y = down.from_pixel(y_start); y <= bottom; ++y) {
    T row = 0, row_left = 0, row_right = 0;
    for (int x = left; x <= right; ++x) {
      const T value = map[y * p.width + x];
      row += across.mean(j, x) * value;
      row_left += hat(x_start - x) * value;
      row_right += hat(x_end - x) * value;
    }
    const T weight = down.mean(i, y);
    mean += weight * row;
    at_left += weight * row_left;
    at_right += weight * row_right;
    at_top += hat(y_start - y) * row;
    at_bottom += hat(y_end - y) * row;
  }
  const T g = grad[int64_t(k) * p.per_region() + item] * p.scale;
  const T gx = g / across.size(), gy = g / down.size();
  const T by_left = gx * (mean - at_left), by_right = gx * (at_right - mean);
  const T by_top = gy * (mean - at_top), by_bottom = gy * (at_bottom - mean);
  // Edge n of N lies n / N of the way from the first corner to the last.
  const T l = T(j) / p.columns, r = T(j + 1) / p.columns, t = T(i) / p.rows, b = T(i + 1) / p.rows;
  sums[0] += by_left * (1 - l) + by_right * (1 - r);
  sums[1] += by_top * (1 - t) + by_bottom * (1 - b);
  sums[2] += by_left * l + by_right * r;
  sums[3] += by_top * t + by_bottom * b;
}

}  // namespace spot
