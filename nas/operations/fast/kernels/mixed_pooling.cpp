// The weighted sum of poolings of several sizes and kinds.

#include "vectors.h"

namespace {

// The sum over sizes of maximum * max pooling + mean * average pooling, whose windows begin (size - 1) / 2 before each
// `stride`-th pixel and are cut off at the border. x (N, H, W, C), out (N, Ho, Wo, C); sizes of at most 15.
struct Pools {
  int64_t N, C, H, W, Ho, Wo, stride, sizes, threads;
  const int64_t* size;
  const void *maximum, *mean;  // factors (sizes,), either null
  unsigned char* argument;     // (sizes, N, Ho, Wo, C): which of its window the maximum is
  void *x, *out;               // pools_adjoint writes x
  void *maximum_sums, *mean_sums;  // pools_products only: (N, sizes), of out times each pooling of x
};

struct Range {  // of rows or columns
  int64_t first, last;
};

// Calls body(s, rows, columns, top, left) for every size's window around the output at (y, i).
template <typename Body>
inline void windows(const Pools& p, int64_t y, int64_t i, Body&& body) {
  for (int64_t s = 0; s < p.sizes; s++) {
    const int64_t size = p.size[s], top = y * p.stride - (size - 1) / 2, left = i * p.stride - (size - 1) / 2;
    body(s, Range{std::max<int64_t>(top, 0), std::min(top + size, p.H)},
         Range{std::max<int64_t>(left, 0), std::min(left + size, p.W)}, top, left);
  }
}

// The value where each maximum was found and the mean, of every size: body(s, maximum, mean).
template <typename T, int W, typename Body>
inline void pooled(const Pools& p, int64_t n, int64_t y, int64_t i, int64_t c, bool search, Body&& body) {
  const T* x = static_cast<const T*>(p.x) + n * p.H * p.W * p.C + c;
  windows(p, y, i, [&](int64_t s, Range rows, Range columns, int64_t top, int64_t left) {
    const int64_t size = p.size[s];
    V<T, W> best = load<T, W>(x + (rows.first * p.W + columns.first) * p.C), sum{};
    unsigned char* argument =
        p.argument ? p.argument + (((s * p.N + n) * p.Ho + y) * p.Wo + i) * p.C + c : nullptr;
    V<Whole<T>, W> which = V<Whole<T>, W>{} + Whole<T>((rows.first - top) * size + columns.first - left);
    if (p.argument && !search) which = __builtin_convertvector((load<unsigned char, W>(argument)), V<Whole<T>, W>);
    for (int64_t r = rows.first; r < rows.last; r++)
      for (int64_t q = columns.first; q < columns.last; q++) {
        const V<T, W> value = load<T, W>(x + (r * p.W + q) * p.C);
        sum += value;
        if (!p.argument) continue;
        const V<Whole<T>, W> here = V<Whole<T>, W>{} + Whole<T>((r - top) * size + q - left);
        if (search) {
          const auto better = (value > best) | (value != value);  // the first of equals, and a NaN is passed on
          best = better ? value : best, which = better ? here : which;
        } else {
          best = which == here ? value : best;
        }
      }
    if (p.argument && search) store<unsigned char, W>(argument, __builtin_convertvector(which, V<unsigned char, W>));
    body(s, best, sum / T((rows.last - rows.first) * (columns.last - columns.first)));
  });
}

template <typename T>
void pools(const Pools& p, bool search) {
  const T *maximum = static_cast<const T*>(p.maximum), *mean = static_cast<const T*>(p.mean);
#pragma omp parallel for schedule(static) num_threads(p.threads)
  for (int64_t n = 0; n < p.N; n++)
    for (int64_t y = 0; y < p.Ho; y++)
      by_vectors<T>(p.C, [&]<int W>(int64_t c) {
        for (int64_t i = 0; i < p.Wo; i++) {
          V<T, W> total{};
          pooled<T, W>(p, n, y, i, c, search, [&](int64_t s, V<T, W> best, V<T, W> average) {
            if (maximum) total += maximum[s] * best;
            if (mean) total += mean[s] * average;
          });
          store<T, W>(static_cast<T*>(p.out) + ((n * p.Ho + y) * p.Wo + i) * p.C + c, total);
        }
      });
}

template <typename T>
void pools_adjoint(const Pools& p) {
  const T *maximum = static_cast<const T*>(p.maximum), *mean = static_cast<const T*>(p.mean);
#pragma omp parallel for schedule(static) num_threads(p.threads)
  for (int64_t n = 0; n < p.N; n++) {
    T* x = static_cast<T*>(p.x) + n * p.H * p.W * p.C;
    std::fill(x, x + p.H * p.W * p.C, T(0));
    for (int64_t y = 0; y < p.Ho; y++)
      by_vectors<T>(p.C, [&]<int W>(int64_t c) {
        for (int64_t i = 0; i < p.Wo; i++) {
          const int64_t at = ((n * p.Ho + y) * p.Wo + i) * p.C + c;
          const V<T, W> g = load<T, W>(static_cast<const T*>(p.out) + at), nothing{};
          windows(p, y, i, [&](int64_t s, Range rows, Range columns, int64_t top, int64_t left) {
            const T count = (rows.last - rows.first) * (columns.last - columns.first);
            const V<T, W> share = mean ? g * (mean[s] / count) : nothing, whole = maximum ? g * maximum[s] : nothing;
            V<Whole<T>, W> which{};
            if (maximum)
              which = __builtin_convertvector(
                  (load<unsigned char, W>(p.argument + s * p.N * p.Ho * p.Wo * p.C + at)), V<Whole<T>, W>);
            for (int64_t r = rows.first; r < rows.last; r++)
              for (int64_t q = columns.first; q < columns.last; q++) {
                T* to = x + (r * p.W + q) * p.C + c;
                V<T, W> sum = load<T, W>(to) + share;
                if (maximum) sum += which == Whole<T>((r - top) * p.size[s] + q - left) ? whole : nothing;
                store<T, W>(to, sum);
              }
          });
        }
      });
  }
}

template <typename T>
void pools_products(const Pools& p) {
#pragma omp parallel for schedule(static) num_threads(p.threads)
  for (int64_t n = 0; n < p.N; n++) {
    std::vector<double> sums(2 * p.sizes, 0.0);
    for (int64_t y = 0; y < p.Ho; y++)
      by_vectors<T>(p.C, [&]<int W>(int64_t c) {
        V<T, W> row[2][16] = {};
        for (int64_t i = 0; i < p.Wo; i++) {
          const V<T, W> g = load<T, W>(static_cast<const T*>(p.out) + ((n * p.Ho + y) * p.Wo + i) * p.C + c);
          pooled<T, W>(p, n, y, i, c, false, [&](int64_t s, V<T, W> best, V<T, W> average) {
            row[0][s] += g * best, row[1][s] += g * average;
          });
        }
        for (int64_t s = 0; s < p.sizes; s++)
          for (int w = 0; w < W; w++) sums[s] += row[0][s][w], sums[p.sizes + s] += row[1][s][w];
      });
    for (int64_t s = 0; s < p.sizes; s++) {
      if (p.maximum_sums) static_cast<T*>(p.maximum_sums)[n * p.sizes + s] = T(sums[s]);
      if (p.mean_sums) static_cast<T*>(p.mean_sums)[n * p.sizes + s] = T(sums[p.sizes + s]);
    }
  }
}

}  // namespace

EXPORT(pools_search, Pools, pools<T>(settings, true))
EXPORT(pools_value, Pools, pools<T>(settings, false))
EXPORT(pools_adjoint, Pools, pools_adjoint<T>(settings))
EXPORT(pools_products, Pools, pools_products<T>(settings))
