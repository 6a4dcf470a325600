// Means and variances of channels.

#pragma once
#include "vectors.h"

namespace {

// Sum and sum of squared distances from the sample's own mean, per channel of one plane whose pixels are `step` apart.
template <typename T>
void plane_statistics(const T* x, int64_t pixels, int64_t step, int64_t C, double* sum, double* squares) {
  by_vectors<T>(C, [&]<int W>(int64_t c) {
    V<T, W> total[4] = {};
    int64_t i = 0;
    for (; i + 4 <= pixels; i += 4)
      for (int u = 0; u < 4; u++) total[u] += load<T, W>(x + (i + u) * step + c);
    for (; i < pixels; i++) total[0] += load<T, W>(x + i * step + c);
    const V<T, W> all = (total[0] + total[1]) + (total[2] + total[3]);
    const V<T, W> mean = all / T(pixels);
    V<T, W> spread[4] = {};
    for (i = 0; i + 4 <= pixels; i += 4)
      for (int u = 0; u < 4; u++) {
        const V<T, W> d = load<T, W>(x + (i + u) * step + c) - mean;
        spread[u] += d * d;
      }
    for (; i < pixels; i++) {
      const V<T, W> d = load<T, W>(x + i * step + c) - mean;
      spread[0] += d * d;
    }
    const V<T, W> squared = (spread[0] + spread[1]) + (spread[2] + spread[3]);
    for (int w = 0; w < W; w++) sum[c + w] = all[w], squares[c + w] = squared[w];
  });
}

// Mean and biased variance over samples from what `plane_statistics` gave for each, (N, channels).
template <typename T>
void combine_statistics(int64_t N, int64_t channels, int64_t pixels, const double* sum, const double* squares, T* mean,
                        T* variance) {
  for (int64_t c = 0; c < channels; c++) {
    double total = 0, spread = 0;
    for (int64_t n = 0; n < N; n++) total += sum[n * channels + c];
    const double centre = total / (double(N) * pixels);
    for (int64_t n = 0; n < N; n++) {
      const double d = sum[n * channels + c] / pixels - centre;
      spread += squares[n * channels + c] + pixels * d * d;
    }
    mean[c] = T(centre), variance[c] = T(spread / (double(N) * pixels));
  }
}

}  // namespace
