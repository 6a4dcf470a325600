// What the tangent of a batch norm needs (batch_norm_tangent.py).

#include "vectors.h"

namespace {

// Per sample, group and channel the sums of v and of v * (x - mean), x and v (N, groups, pixels, C) with equal strides.
struct Pair {
  int64_t N, groups, pixels, C, sample, group, pixel, threads;
  const void *x, *v, *mean;  // mean (groups, C)
  void *sums, *products;     // (N, groups, C)
};

template <typename T>
void pair_sums(const Pair& p) {
#pragma omp parallel for schedule(static) num_threads(p.threads)
  for (int64_t n = 0; n < p.N; n++)
    for (int64_t g = 0; g < p.groups; g++)
      by_vectors<T>(p.C, [&]<int W>(int64_t c) {
        const int64_t from = n * p.sample + g * p.group + c, to = (n * p.groups + g) * p.C + c;
        const T *x = static_cast<const T*>(p.x) + from, *v = static_cast<const T*>(p.v) + from;
        const V<T, W> mean = load<T, W>(static_cast<const T*>(p.mean) + g * p.C + c);
        V<T, W> sum[2] = {}, product[2] = {};
        for (int64_t i = 0; i < p.pixels; i++) {
          const V<T, W> value = load<T, W>(v + i * p.pixel);
          sum[i & 1] += value, product[i & 1] += value * (load<T, W>(x + i * p.pixel) - mean);
        }
        store<T, W>(static_cast<T*>(p.sums) + to, sum[0] + sum[1]);
        store<T, W>(static_cast<T*>(p.products) + to, product[0] + product[1]);
      });
}

// x = c1 * (x as it is) + c2 * y + c3 * (z - mean) + c4 * v + c0 per group and channel, all (N, groups, pixels, C);
// y and v together may be null.
struct Combination {
  int64_t N, groups, pixels, C, threads;
  void* x;
  const void *y, *z, *v, *mean;
  const void* coefficients;  // (5, groups, C)
};

template <typename T>
void combined(const Combination& p) {
#pragma omp parallel for schedule(static) num_threads(p.threads)
  for (int64_t n = 0; n < p.N; n++)
    for (int64_t g = 0; g < p.groups; g++)
      by_vectors<T>(p.C, [&]<int W>(int64_t c) {
        const int64_t from = (n * p.groups + g) * p.pixels * p.C + c, channel = g * p.C + c;
        V<T, W> k[5];
        for (int i = 0; i < 5; i++)
          k[i] = load<T, W>(static_cast<const T*>(p.coefficients) + i * p.groups * p.C + channel);
        const V<T, W> mean = load<T, W>(static_cast<const T*>(p.mean) + channel);
        T* x = static_cast<T*>(p.x) + from;
        const T *y = static_cast<const T*>(p.y) + from, *z = static_cast<const T*>(p.z) + from,
                *v = static_cast<const T*>(p.v) + from;  // y and v are not read where they are null
        for (int64_t at = 0; at < p.pixels * p.C; at += p.C) {
          V<T, W> sum = k[0] + k[1] * load<T, W>(x + at) + k[3] * (load<T, W>(z + at) - mean);
          if (p.y) sum += k[2] * load<T, W>(y + at) + k[4] * load<T, W>(v + at);
          store<T, W>(x + at, sum);
        }
      });
}

}  // namespace

EXPORT(sum_pairs, Pair, pair_sums<T>(settings))
EXPORT(combine, Combination, combined<T>(settings))
