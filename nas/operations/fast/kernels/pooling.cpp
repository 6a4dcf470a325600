// Maximum and average pooling of one tensor, 3x3.

#include "statistics.h"

namespace {

struct Window {
  int64_t first, last;
};
inline Window window(int64_t at, int64_t stride, int64_t size) {
  return {std::max<int64_t>(at * stride - 1, 0), std::min(at * stride + 2, size)};
}

// 3x3 maximum and mean with a margin of one, which no mean counts. x (N, H, W, C), the others (N, Ho, Wo, C).
struct Pooling {
  int64_t N, C, H, W, Ho, Wo, stride, threads;
  const void* x;
  void *maximum, *mean;  // either may be null
  unsigned char* argument;  // which of the nine the maximum is
  const void *gmaximum, *gmean;  // backward only; either may be null
  void* gx;
  void* statistics[4];  // mean and variance of the maxima, then of the means, (C,) each
};

template <typename T, int W>
inline void pool_piece(const Pooling& p, const T* x, int64_t y, int64_t i, T* maximum, T* mean,
                       unsigned char* argument) {
  const Window rows = window(y, p.stride, p.H), columns = window(i, p.stride, p.W);
  const int64_t top = y * p.stride - 1, left = i * p.stride - 1;
  V<T, W> best = load<T, W>(x + (rows.first * p.W + columns.first) * p.C), sum{};
  V<Whole<T>, W> which = V<Whole<T>, W>{} + Whole<T>((rows.first - top) * 3 + columns.first - left);
  for (int64_t r = rows.first; r < rows.last; r++)
    for (int64_t q = columns.first; q < columns.last; q++) {
      const V<T, W> value = load<T, W>(x + (r * p.W + q) * p.C);
      const auto better = (value > best) | (value != value);  // a NaN is passed on, as in PyTorch
      best = better ? value : best;
      which = better ? V<Whole<T>, W>{} + Whole<T>((r - top) * 3 + q - left) : which;
      sum += value;
    }
  store<T, W>(maximum, best);
  store<T, W>(mean, sum / T((rows.last - rows.first) * (columns.last - columns.first)));
  for (int w = 0; w < W; w++) argument[w] = static_cast<unsigned char>(which[w]);
}

template <typename T>
void pooling_forward(const Pooling& p) {
  const int64_t C = p.C, out = p.Ho * p.Wo;
  std::vector<double> sums[2], squares[2];
  for (int i = 0; i < 2; i++) sums[i].resize(p.N * C), squares[i].resize(p.N * C);
#pragma omp parallel for schedule(static) num_threads(p.threads)
  for (int64_t n = 0; n < p.N; n++) {
    const T* x = static_cast<const T*>(p.x) + n * p.H * p.W * C;
    T *maximum = static_cast<T*>(p.maximum) + n * out * C, *mean = static_cast<T*>(p.mean) + n * out * C;
    unsigned char* argument = p.argument + n * out * C;
    by_vectors<T>(C, [&]<int W>(int64_t c) {
      for (int64_t y = 0; y < p.Ho; y++)
        for (int64_t i = 0; i < p.Wo; i++) {
          const int64_t at = (y * p.Wo + i) * C + c;
          pool_piece<T, W>(p, x + c, y, i, maximum + at, mean + at, argument + at);
        }
    });
    plane_statistics<T>(maximum, out, C, C, &sums[0][n * C], &squares[0][n * C]);
    plane_statistics<T>(mean, out, C, C, &sums[1][n * C], &squares[1][n * C]);
  }
  for (int i = 0; i < 2; i++)
    combine_statistics<T>(p.N, C, out, sums[i].data(), squares[i].data(), static_cast<T*>(p.statistics[2 * i]),
                          static_cast<T*>(p.statistics[2 * i + 1]));
}

template <typename T>
void pooling_backward(const Pooling& p) {
  const int64_t C = p.C, out = p.Ho * p.Wo;
#pragma omp parallel for schedule(static) num_threads(p.threads)
  for (int64_t n = 0; n < p.N; n++) {
    T* gx = static_cast<T*>(p.gx) + n * p.H * p.W * C;
    std::fill(gx, gx + p.H * p.W * C, T(0));
    by_vectors<T>(C, [&]<int W>(int64_t c) {
      for (int64_t y = 0; y < p.Ho; y++)
        for (int64_t i = 0; i < p.Wo; i++) {
          const Window rows = window(y, p.stride, p.H), columns = window(i, p.stride, p.W);
          const int64_t at = (n * out + y * p.Wo + i) * C + c, top = y * p.stride - 1, left = i * p.stride - 1;
          const V<T, W> nothing{};
          const V<T, W> gmaximum = p.gmaximum ? load<T, W>(static_cast<const T*>(p.gmaximum) + at) : nothing;
          V<T, W> share = p.gmean ? load<T, W>(static_cast<const T*>(p.gmean) + at) : nothing;
          share /= T((rows.last - rows.first) * (columns.last - columns.first));
          V<Whole<T>, W> which;
          for (int w = 0; w < W; w++) which[w] = p.argument[at + w];
          for (int64_t r = rows.first; r < rows.last; r++)
            for (int64_t q = columns.first; q < columns.last; q++) {
              T* to = gx + (r * p.W + q) * C + c;
              const auto here = which == Whole<T>((r - top) * 3 + q - left);
              store<T, W>(to, load<T, W>(to) + share + (here ? gmaximum : nothing));
            }
        }
    });
  }
}

// The values of x where the maxima were, and x's means: the poolings' tangents along x.
template <typename T>
void pooling_tangent(const Pooling& p) {
  const int64_t C = p.C, out = p.Ho * p.Wo;
#pragma omp parallel for schedule(static) num_threads(p.threads)
  for (int64_t n = 0; n < p.N; n++) {
    const T* x = static_cast<const T*>(p.x) + n * p.H * p.W * C;
    for (int64_t y = 0; y < p.Ho; y++)
      for (int64_t i = 0; i < p.Wo; i++) {
        const Window rows = window(y, p.stride, p.H), columns = window(i, p.stride, p.W);
        const int64_t at = (n * out + y * p.Wo + i) * C, top = y * p.stride - 1, left = i * p.stride - 1;
        T *maximum = static_cast<T*>(p.maximum) + at, *mean = static_cast<T*>(p.mean) + at;
        for (int64_t c = 0; c < C; c++) {
          const unsigned char which = p.argument[at + c];
          maximum[c] = x[((top + which / 3) * p.W + left + which % 3) * C + c];
        }
        by_vectors<T>(C, [&]<int W>(int64_t c) {
          V<T, W> sum{};
          for (int64_t r = rows.first; r < rows.last; r++)
            for (int64_t q = columns.first; q < columns.last; q++) sum += load<T, W>(x + (r * p.W + q) * C + c);
          store<T, W>(mean + c, sum / T((rows.last - rows.first) * (columns.last - columns.first)));
        });
      }
  }
}

}  // namespace

EXPORT(pool_forward, Pooling, pooling_forward<T>(settings))
EXPORT(pool_backward, Pooling, pooling_backward<T>(settings))
EXPORT(pool_tangent, Pooling, pooling_tangent<T>(settings))
