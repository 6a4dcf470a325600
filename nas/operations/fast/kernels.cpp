// Kernels of the fast supernets for the CPU, called through ctypes (see library.py); no PyTorch headers, so that they
// compile in seconds and fit every version. Images are channels-last: the innermost axis is the channels', and all
// vector arithmetic runs along it. A "plane" is one sample of one group: (H, W, C), contiguous.
//
// Samples are spread over threads. Sums over samples are added up in the samples' order per thread and then in the
// threads' order, so that the same number of threads gives the same bits.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

using std::int64_t;

// A vector of W numbers that may lie anywhere in memory; GCC and Clang lower it to what the machine has.
template <typename T, int W>
struct Vec {
  typedef T type __attribute__((vector_size(W * sizeof(T)), aligned(alignof(T)), may_alias));
};
template <typename T, int W>
using V = typename Vec<T, W>::type;
template <typename T, int W>
inline V<T, W> load(const T* p) {
  return *reinterpret_cast<const V<T, W>*>(p);
}
template <typename T, int W>
inline void store(T* p, V<T, W> v) {
  *reinterpret_cast<V<T, W>*>(p) = v;
}
template <typename T>
constexpr int widest = 64 / sizeof(T);

// Calls body.template operator()<W>(first) for consecutive pieces of 0..n, as wide as possible.
template <typename T, typename Body>
inline void by_vectors(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + widest<T> <= n; i += widest<T>) body.template operator()<widest<T>>(i);
  for (; i + 4 <= n; i += 4) body.template operator()<4>(i);
  for (; i < n; i++) body.template operator()<1>(i);
}

inline int thread_number() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// ---------------------------------------------------------------------------------------------- matrix product

// C (M, N) = or += A (M, K) B (K, N); A's element (m, k) is a[m * am + k * ak], so that it may be transposed.
template <typename T, int W, int NV, int MR>
inline void tile(int64_t K, const T* a, int64_t am, int64_t ak, const T* b, int64_t ldb, T* c, int64_t ldc, bool add) {
  V<T, W> acc[MR][NV];
  for (int m = 0; m < MR; m++)
    for (int v = 0; v < NV; v++) acc[m][v] = add ? load<T, W>(c + m * ldc + v * W) : V<T, W>{};
  for (int64_t k = 0; k < K; k++) {
    V<T, W> row[NV];
    for (int v = 0; v < NV; v++) row[v] = load<T, W>(b + k * ldb + v * W);
    for (int m = 0; m < MR; m++) {
      const T factor = a[m * am + k * ak];
      for (int v = 0; v < NV; v++) acc[m][v] += factor * row[v];
    }
  }
  for (int m = 0; m < MR; m++)
    for (int v = 0; v < NV; v++) store<T, W>(c + m * ldc + v * W, acc[m][v]);
}

template <typename T, int W, int NV, int MR>
inline void columns(int64_t M, int64_t K, const T* a, int64_t am, int64_t ak, const T* b, int64_t ldb, T* c,
                    int64_t ldc, bool add) {
  int64_t m = 0;
  for (; m + MR <= M; m += MR) tile<T, W, NV, MR>(K, a + m * am, am, ak, b, ldb, c + m * ldc, ldc, add);
  for (; m < M; m++) tile<T, W, NV, 1>(K, a + m * am, am, ak, b, ldb, c + m * ldc, ldc, add);
}

template <typename T>
void multiply(int64_t M, int64_t N, int64_t K, const T* a, int64_t am, int64_t ak, const T* b, int64_t ldb, T* c,
              int64_t ldc, bool add) {
  constexpr int W = widest<T>;
  int64_t n = 0;
  for (; n + 4 * W <= N; n += 4 * W) columns<T, W, 4, 6>(M, K, a, am, ak, b + n, ldb, c + n, ldc, add);
  for (; n + 2 * W <= N; n += 2 * W) columns<T, W, 2, 8>(M, K, a, am, ak, b + n, ldb, c + n, ldc, add);
  for (; n + W <= N; n += W) columns<T, W, 1, 8>(M, K, a, am, ak, b + n, ldb, c + n, ldc, add);
  for (; n + 4 <= N; n += 4) columns<T, 4, 1, 8>(M, K, a, am, ak, b + n, ldb, c + n, ldc, add);
  for (; n < N; n++) columns<T, 1, 1, 8>(M, K, a, am, ak, b + n, ldb, c + n, ldc, add);
}

// ---------------------------------------------------------------------------------------------- depthwise pieces

// One row of a depthwise convolution: out[i] = or += sum over taps of z[i * step + offset[tap]] * w[tap], per channel.
template <typename T, int W, int PX>
inline void row_tile(const T* z, int64_t step, int64_t taps, const int64_t* offset, const T* w, int64_t C, T* out,
                     int64_t out_step, bool add) {
  V<T, W> acc[PX];
  for (int i = 0; i < PX; i++) acc[i] = add ? load<T, W>(out + i * out_step) : V<T, W>{};
  for (int64_t t = 0; t < taps; t++) {
    const V<T, W> factor = load<T, W>(w + t * C);
    const T* from = z + offset[t];
    for (int i = 0; i < PX; i++) acc[i] += load<T, W>(from + i * step) * factor;
  }
  for (int i = 0; i < PX; i++) store<T, W>(out + i * out_step, acc[i]);
}

template <typename T>
void convolved_row(const T* z, int64_t step, int64_t taps, const int64_t* offset, const T* w, int64_t C, T* out,
                   int64_t out_step, int64_t length, bool add) {
  by_vectors<T>(C, [&]<int W>(int64_t c) {
    int64_t i = 0;
    for (; i + 8 <= length; i += 8)
      row_tile<T, W, 8>(z + c + i * step, step, taps, offset, w + c, C, out + c + i * out_step, out_step, add);
    for (; i < length; i++)
      row_tile<T, W, 1>(z + c + i * step, step, taps, offset, w + c, C, out + c + i * out_step, out_step, add);
  });
}

// gw[ky, kx, c] += sum over the output's positions of g * z, for one row ky of the kernel.
template <typename T, int W, int K>
inline void kernel_row_gradient(const T* z, int64_t row, int64_t step, int64_t tap, const T* g, int64_t g_row,
                                int64_t C, int64_t height, int64_t width, T* gw) {
  constexpr int U = K >= 5 ? 2 : 4;  // independent sums, so that additions do not wait for each other
  V<T, W> acc[U][K] = {};
  for (int64_t y = 0; y < height; y++) {
    const T* zr = z + y * row;
    const T* gr = g + y * g_row;
    int64_t x = 0;
    for (; x + U <= width; x += U)
      for (int u = 0; u < U; u++) {
        const V<T, W> factor = load<T, W>(gr + (x + u) * C);
        for (int k = 0; k < K; k++) acc[u][k] += factor * load<T, W>(zr + (x + u) * step + k * tap);
      }
    for (; x < width; x++) {
      const V<T, W> factor = load<T, W>(gr + x * C);
      for (int k = 0; k < K; k++) acc[0][k] += factor * load<T, W>(zr + x * step + k * tap);
    }
  }
  for (int k = 0; k < K; k++) {
    V<T, W> sum = acc[0][k];
    for (int u = 1; u < U; u++) sum += acc[u][k];
    store<T, W>(gw + k * C, load<T, W>(gw + k * C) + sum);
  }
}

struct Group {  // of channels that share a kernel size: an operation on an edge
  int64_t kernel, dilation, padding;
};

// A plane with a margin of zeros on every side, so that no kernel asks where the border is.
template <typename T>
struct Padded {
  int64_t H, W, C, margin, row;
  std::vector<T> data;
  Padded(int64_t H, int64_t W, int64_t C, int64_t margin)
      : H(H), W(W), C(C), margin(margin), row((W + 2 * margin) * C), data((H + 2 * margin) * row, T(0)) {}
  T* at(int64_t y, int64_t x) { return data.data() + (y + margin) * row + (x + margin) * C; }
};

// The convolution of one sample and one group, its input padded. `w` is (k * k, C).
template <typename T>
struct Depthwise {
  Group group;
  int64_t stride, Ho, Wo, C;
  std::vector<T> w, flipped;

  Depthwise(const Group& group, int64_t stride, int64_t Ho, int64_t Wo, int64_t C, const T* weight)
      : group(group), stride(stride), Ho(Ho), Wo(Wo), C(C), w(group.kernel * group.kernel * C), flipped(w.size()) {
    const int64_t taps = group.kernel * group.kernel;
    for (int64_t c = 0; c < C; c++)
      for (int64_t t = 0; t < taps; t++) w[t * C + c] = flipped[(taps - 1 - t) * C + c] = weight[c * taps + t];
  }

  std::vector<int64_t> offsets(int64_t row) const {
    std::vector<int64_t> found;
    for (int64_t ky = 0; ky < group.kernel; ky++)
      for (int64_t kx = 0; kx < group.kernel; kx++) found.push_back(group.dilation * (ky * row + kx * C));
    return found;
  }

  // out (Ho, Wo, C)
  void forward(Padded<T>& z, T* out) const {
    const auto offset = offsets(z.row);
    for (int64_t y = 0; y < Ho; y++)
      convolved_row<T>(z.at(y * stride - group.padding, -group.padding), stride * C, offset.size(), offset.data(),
                       w.data(), C, out + y * Wo * C, C, Wo, false);
  }

  // gz (H, W, C, padded) += ; for stride 1 `g` needs the margin span - padding
  void backward_input(Padded<T>& g, Padded<T>& gz) const {
    if (stride == 1) {
      const auto offset = offsets(g.row);
      const int64_t before = group.dilation * (group.kernel - 1) - group.padding;
      for (int64_t y = 0; y < gz.H; y++)
        convolved_row<T>(g.at(y - before, -before), C, offset.size(), offset.data(), flipped.data(), C, gz.at(y, 0), C,
                         gz.W, true);
      return;
    }
    const auto offset = offsets(gz.row);
    by_vectors<T>(C, [&]<int W>(int64_t c) {
      for (int64_t y = 0; y < Ho; y++)
        for (int64_t x = 0; x < Wo; x++) {
          const V<T, W> factor = load<T, W>(g.at(y, x) + c);
          T* to = gz.at(y * stride - group.padding, x * stride - group.padding) + c;
          for (size_t t = 0; t < offset.size(); t++)
            store<T, W>(to + offset[t], load<T, W>(to + offset[t]) + factor * load<T, W>(w.data() + t * C + c));
        }
    });
  }

  // gw (k * k, C) +=
  void backward_weight(Padded<T>& z, Padded<T>& g, T* gw) const {
    for (int64_t ky = 0; ky < group.kernel; ky++) {
      T* to = gw + ky * group.kernel * C;
      const int64_t tap = group.dilation * C, top = ky * group.dilation - group.padding;
      by_vectors<T>(C, [&]<int W>(int64_t c) {
        const auto with = [&]<int K>(int64_t kx) {
          kernel_row_gradient<T, W, K>(z.at(top, kx * group.dilation - group.padding) + c, stride * z.row, stride * C,
                                       tap, g.at(0, 0) + c, g.row, C, Ho, Wo, to + kx * C + c);
        };
        int64_t kx = 0;
        for (; kx + 5 <= group.kernel; kx += 5) with.template operator()<5>(kx);
        for (; kx + 3 <= group.kernel; kx += 3) with.template operator()<3>(kx);
        for (; kx < group.kernel; kx++) with.template operator()<1>(kx);
      });
    }
  }
};

// ---------------------------------------------------------------------------------------------- channel statistics

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

// ---------------------------------------------------------------------------------------------- separable layer

// relu((x - mean) * scale), depthwise convolution, pointwise convolution; the first step without mean and scale where
// they are null. `inputs` is 1 where all groups read one plane, else the number of groups.
struct Separable {
  int64_t N, C, H, W, Ho, Wo, stride, inputs, groups, threads;
  const Group* group;
  const void* x;                 // (N, inputs, H, W, C)
  const void* mean;              // (inputs, C) or null
  const void* scale;             // (inputs, C) or null
  const void* const* depthwise;  // per group (C, k, k)
  const void* const* pointwise;  // per group (C out, C in)
  void* y;                       // (N, groups, Ho, Wo, C)
  void* y_mean;                  // (groups, C)
  void* y_variance;              // (groups, C)
  // backward only; each may be null where it is not wanted
  const void* gy;           // as y
  void* gx;                 // as x
  void* const* gdepthwise;  // as depthwise
  void* const* gpointwise;  // as pointwise
  int64_t batch_statistics;  // whether mean and scale are those of x, and so have a gradient of their own
  // Second backward only: directions of x and of the weights. The input's normalised value moves by
  // along * vx + across * (x - mean) + shift, per input and channel; `along` and the others are null without mean.
  const void* vx;
  const void* const* vdepthwise;
  const void* const* vpointwise;
  const void *along, *across, *shift;
  void* ty;  // as y: how y moves; the gradients are those of <gy, ty>
  void* second;  // as x, null without mean: the gradient with respect to the normalised input's motion
  void* moments;  // (5, N, inputs, C): sums of h1, h1 u, h2, h2 u, h2 vx, where u = x - mean
};

namespace {

template <typename T>
struct SeparableLayer {
  const Separable& s;
  std::vector<Depthwise<T>> layers;
  int64_t in_margin = 0, out_margin = 0;

  explicit SeparableLayer(const Separable& s) : s(s) {
    for (int64_t g = 0; g < s.groups; g++) {
      const Group& group = s.group[g];
      layers.emplace_back(group, s.stride, s.Ho, s.Wo, s.C, static_cast<const T*>(s.depthwise[g]));
      const int64_t span = group.dilation * (group.kernel - 1);
      in_margin = std::max({in_margin, group.padding, span - group.padding,
                            (s.Ho - 1) * s.stride - group.padding + span - s.H + 1,
                            (s.Wo - 1) * s.stride - group.padding + span - s.W + 1});
      out_margin = std::max({out_margin, span - group.padding, group.padding});
    }
  }

  const T* plane(int64_t n, int64_t input) const {
    return static_cast<const T*>(s.x) + (n * s.inputs + input) * s.H * s.W * s.C;
  }

  void activate(int64_t n, int64_t input, Padded<T>& z) const {
    const T* x = plane(n, input);
    const T* mean = s.mean ? static_cast<const T*>(s.mean) + input * s.C : nullptr;
    const T* scale = s.mean ? static_cast<const T*>(s.scale) + input * s.C : nullptr;
    for (int64_t y = 0; y < s.H; y++) {
      T* to = z.at(y, 0);
      const T* from = x + y * s.W * s.C;
      if (mean == nullptr) {
        for (int64_t i = 0; i < s.W * s.C; i++) to[i] = from[i] > T(0) ? from[i] : T(0);
        continue;
      }
      for (int64_t i = 0; i < s.W; i++, to += s.C, from += s.C)
        for (int64_t c = 0; c < s.C; c++) {
          const T value = (from[c] - mean[c]) * scale[c];
          to[c] = value > T(0) ? value : T(0);
        }
    }
  }

  void forward() const {
    const int64_t C = s.C, out = s.Ho * s.Wo, plane_size = out * C;
    std::vector<T> transposed(s.groups * C * C);
    for (int64_t g = 0; g < s.groups; g++) {
      const T* w = static_cast<const T*>(s.pointwise[g]);
      for (int64_t o = 0; o < C; o++)
        for (int64_t i = 0; i < C; i++) transposed[(g * C + i) * C + o] = w[o * C + i];
    }
    std::vector<double> sums(s.N * s.groups * C), squares(sums.size());
#pragma omp parallel num_threads(s.threads)
    {
      Padded<T> z(s.H, s.W, C, in_margin);
      std::vector<T> filtered(plane_size);
#pragma omp for schedule(static)
      for (int64_t n = 0; n < s.N; n++)
        for (int64_t g = 0; g < s.groups; g++) {
          if (g == 0 || s.inputs > 1) activate(n, s.inputs > 1 ? g : 0, z);
          layers[g].forward(z, filtered.data());
          const int64_t at = n * s.groups + g;
          T* y = static_cast<T*>(s.y) + at * plane_size;
          multiply<T>(out, C, C, filtered.data(), C, 1, &transposed[g * C * C], C, y, C, false);
          plane_statistics<T>(y, out, C, C, &sums[at * C], &squares[at * C]);
        }
    }
    combine_statistics<T>(s.N, s.groups * C, out, sums.data(), squares.data(), static_cast<T*>(s.y_mean),
                          static_cast<T*>(s.y_variance));
  }

  void backward() const {
    const int64_t C = s.C, out = s.Ho * s.Wo, plane_size = out * C;
    std::vector<int64_t> first(s.groups + 1, 0);  // where a group's depthwise kernel begins in the threads' sums
    for (int64_t g = 0; g < s.groups; g++) first[g + 1] = first[g] + s.group[g].kernel * s.group[g].kernel * C;
    const int64_t per_thread = first[s.groups] + s.groups * C * C;
    std::vector<T> gradients(s.threads * per_thread, T(0));
    const bool normalised = s.mean != nullptr;
    std::vector<double> sums(normalised ? s.N * s.inputs * C : 0), products(sums.size());
    T* gx = static_cast<T*>(s.gx);
#pragma omp parallel num_threads(s.threads)
    {
      Padded<T> z(s.H, s.W, C, in_margin), gz(s.H, s.W, C, in_margin), gd(s.Ho, s.Wo, C, out_margin);
      std::vector<T> filtered(plane_size);
      T* own = gradients.data() + thread_number() * per_thread;
#pragma omp for schedule(static)
      for (int64_t n = 0; n < s.N; n++)
        for (int64_t g = 0; g < s.groups; g++) {
          const int64_t input = s.inputs > 1 ? g : 0;
          if (g == 0 || s.inputs > 1) {
            activate(n, input, z);
            if (gx) std::fill(gz.data.begin(), gz.data.end(), T(0));
          }
          const T* gy = static_cast<const T*>(s.gy) + (n * s.groups + g) * plane_size;
          if (s.gpointwise) {
            layers[g].forward(z, filtered.data());
            multiply<T>(C, C, out, gy, 1, C, filtered.data(), C, own + first[s.groups] + g * C * C, C, true);
          }
          const T* w = static_cast<const T*>(s.pointwise[g]);
          for (int64_t y = 0; y < s.Ho; y++)
            multiply<T>(s.Wo, C, C, gy + y * s.Wo * C, C, 1, w, C, gd.at(y, 0), C, false);
          if (s.gdepthwise) layers[g].backward_weight(z, gd, own + first[g]);
          if (!gx) continue;
          layers[g].backward_input(gd, gz);
          if (s.inputs > 1 || g == s.groups - 1) through_activation(n, input, z, gz, sums, products);
        }
    }
    if (gx && normalised) through_normalisation(sums, products);
    write_weight_gradients(first, gradients, per_thread);
  }

  // gx = gradient with respect to the normalised input, and per sample its sums, plain and times (x - mean)
  void through_activation(int64_t n, int64_t input, Padded<T>& z, Padded<T>& gz, std::vector<double>& sums,
                          std::vector<double>& products) const {
    const int64_t C = s.C, at = n * s.inputs + input;
    T* gx = static_cast<T*>(s.gx) + at * s.H * s.W * C;
    for (int64_t y = 0; y < s.H; y++) {
      const T *value = z.at(y, 0), *gradient = gz.at(y, 0);
      T* to = gx + y * s.W * C;
      for (int64_t i = 0; i < s.W * C; i++) to[i] = value[i] > T(0) ? gradient[i] : T(0);
    }
    if (!s.mean) return;
    const T* x = plane(n, input);
    const T* mean = static_cast<const T*>(s.mean) + input * C;
    by_vectors<T>(C, [&]<int W>(int64_t c) {
      V<T, W> sum[2] = {}, product[2] = {};
      const V<T, W> centre = load<T, W>(mean + c);
      for (int64_t i = 0; i < s.H * s.W; i++) {
        const V<T, W> g = load<T, W>(gx + i * C + c);
        sum[i & 1] += g, product[i & 1] += g * (load<T, W>(x + i * C + c) - centre);
      }
      sum[0] += sum[1], product[0] += product[1];
      for (int w = 0; w < W; w++) sums[at * C + c + w] = sum[0][w], products[at * C + c + w] = product[0][w];
    });
  }

  // The first derivative of <gy, ty>, where ty is how y moves along (vx, vdepthwise, vpointwise). With mean, gx and
  // `second` are the gradients with respect to the normalised input and to its motion.
  void second_backward() const {
    const int64_t C = s.C, out = s.Ho * s.Wo, plane_size = out * C, in_size = s.H * s.W * C;
    std::vector<int64_t> first(s.groups + 1, 0);
    for (int64_t g = 0; g < s.groups; g++) first[g + 1] = first[g] + s.group[g].kernel * s.group[g].kernel * C;
    const int64_t per_thread = first[s.groups] + s.groups * C * C;
    std::vector<T> gradients(s.threads * per_thread, T(0)), transposed(2 * s.groups * C * C);
    std::vector<Depthwise<T>> moving;
    for (int64_t g = 0; g < s.groups; g++) {
      moving.emplace_back(s.group[g], s.stride, s.Ho, s.Wo, C, static_cast<const T*>(s.vdepthwise[g]));
      for (int64_t o = 0; o < C; o++)
        for (int64_t i = 0; i < C; i++) {
          transposed[(2 * g * C + i) * C + o] = static_cast<const T*>(s.pointwise[g])[o * C + i];
          transposed[((2 * g + 1) * C + i) * C + o] = static_cast<const T*>(s.vpointwise[g])[o * C + i];
        }
    }
    T *gx = static_cast<T*>(s.gx), *motion_gradient = static_cast<T*>(s.second);
    const bool weights = s.gdepthwise != nullptr, backwards = gx || weights;
#pragma omp parallel num_threads(s.threads)
    {
      Padded<T> z(s.H, s.W, C, in_margin), zt(s.H, s.W, C, in_margin), gz(s.H, s.W, C, in_margin),
          gzt(s.H, s.W, C, in_margin), gd(s.Ho, s.Wo, C, out_margin), hd(s.Ho, s.Wo, C, out_margin);
      std::vector<T> filtered(plane_size), moved(plane_size), further(plane_size);
      T* own = gradients.data() + thread_number() * per_thread;
#pragma omp for schedule(static)
      for (int64_t n = 0; n < s.N; n++)
        for (int64_t g = 0; g < s.groups; g++) {
          const int64_t input = s.inputs > 1 ? g : 0, at = n * s.inputs + input;
          const bool begins = g == 0 || s.inputs > 1, ends = s.inputs > 1 || g == s.groups - 1;
          if (begins) {
            activate(n, input, z);
            motion(n, input, z, zt);
            std::fill(gz.data.begin(), gz.data.end(), T(0));
            std::fill(gzt.data.begin(), gzt.data.end(), T(0));
          }
          layers[g].forward(z, filtered.data());
          layers[g].forward(zt, moved.data());
          moving[g].forward(z, further.data());
          for (int64_t i = 0; i < plane_size; i++) moved[i] += further[i];
          const T* gy = static_cast<const T*>(s.gy) + (n * s.groups + g) * plane_size;
          if (s.ty) {
            T* ty = static_cast<T*>(s.ty) + (n * s.groups + g) * plane_size;
            multiply<T>(out, C, C, moved.data(), C, 1, &transposed[2 * g * C * C], C, ty, C, false);
            multiply<T>(out, C, C, filtered.data(), C, 1, &transposed[(2 * g + 1) * C * C], C, ty, C, true);
          }
          if (!backwards) continue;
          for (int64_t y = 0; y < s.Ho; y++) {
            const T* row = gy + y * s.Wo * C;
            multiply<T>(s.Wo, C, C, row, C, 1, static_cast<const T*>(s.pointwise[g]), C, gd.at(y, 0), C, false);
            multiply<T>(s.Wo, C, C, row, C, 1, static_cast<const T*>(s.vpointwise[g]), C, hd.at(y, 0), C, false);
          }
          if (weights) {
            multiply<T>(C, C, out, gy, 1, C, moved.data(), C, own + first[s.groups] + g * C * C, C, true);
            layers[g].backward_weight(zt, gd, own + first[g]);
            layers[g].backward_weight(z, hd, own + first[g]);
          }
          if (!gx) continue;
          layers[g].backward_input(hd, gz);
          moving[g].backward_input(gd, gz);
          if (motion_gradient) layers[g].backward_input(gd, gzt);
          if (!ends) continue;
          masked(z, gz, gx + at * in_size);
          if (motion_gradient) {
            masked(z, gzt, motion_gradient + at * in_size);
            second_moments(n, input);
          }
        }
    }
    write_weight_gradients(first, gradients, per_thread);
  }

  // zt = how the activated input moves, zero where the ReLU is
  void motion(int64_t n, int64_t input, Padded<T>& z, Padded<T>& zt) const {
    const T *x = plane(n, input), *vx = static_cast<const T*>(s.vx) + (x - static_cast<const T*>(s.x));
    const auto of = [&](const void* values) { return static_cast<const T*>(values) + input * s.C; };
    for (int64_t y = 0; y < s.H; y++)
      for (int64_t i = 0; i < s.W; i++) {
        const T *value = z.at(y, i), *from = x + (y * s.W + i) * s.C, *v = vx + (y * s.W + i) * s.C;
        T* to = zt.at(y, i);
        if (!s.mean) {
          for (int64_t c = 0; c < s.C; c++) to[c] = value[c] > T(0) ? v[c] : T(0);
          continue;
        }
        const T *mean = of(s.mean), *along = of(s.along), *across = of(s.across), *shift = of(s.shift);
        for (int64_t c = 0; c < s.C; c++) {
          const T moved = along[c] * v[c] + across[c] * (from[c] - mean[c]) + shift[c];
          to[c] = value[c] > T(0) ? moved : T(0);
        }
      }
  }

  void masked(Padded<T>& z, Padded<T>& gz, T* to) const {
    for (int64_t y = 0; y < s.H; y++) {
      const T *value = z.at(y, 0), *gradient = gz.at(y, 0);
      for (int64_t i = 0; i < s.W * s.C; i++) *to++ = value[i] > T(0) ? gradient[i] : T(0);
    }
  }

  void second_moments(int64_t n, int64_t input) const {
    const int64_t C = s.C, at = n * s.inputs + input, all = s.N * s.inputs * C, pixels = s.H * s.W;
    const T *x = plane(n, input), *vx = static_cast<const T*>(s.vx) + at * pixels * C;
    const T *h1 = static_cast<const T*>(s.gx) + at * pixels * C, *h2 = static_cast<const T*>(s.second) + at * pixels * C;
    const T* mean = static_cast<const T*>(s.mean) + input * C;
    T* to = static_cast<T*>(s.moments) + at * C;
    by_vectors<T>(C, [&]<int W>(int64_t c) {
      V<T, W> sum[5] = {};
      const V<T, W> centre = load<T, W>(mean + c);
      for (int64_t i = 0; i < pixels; i++) {
        const V<T, W> u = load<T, W>(x + i * C + c) - centre, v = load<T, W>(vx + i * C + c);
        const V<T, W> one = load<T, W>(h1 + i * C + c), two = load<T, W>(h2 + i * C + c);
        sum[0] += one, sum[1] += one * u, sum[2] += two, sum[3] += two * u, sum[4] += two * v;
      }
      for (int k = 0; k < 5; k++) store<T, W>(to + k * all + c, sum[k]);
    });
  }

  void write_weight_gradients(const std::vector<int64_t>& first, const std::vector<T>& gradients,
                              int64_t per_thread) const {
    const auto total = [&](int64_t i) {
      T sum = 0;
      for (int64_t t = 0; t < s.threads; t++) sum += gradients[t * per_thread + i];
      return sum;
    };
    for (int64_t g = 0; g < s.groups; g++) {
      const int64_t C = s.C, taps = s.group[g].kernel * s.group[g].kernel;
      if (s.gdepthwise)
        for (int64_t c = 0; c < C; c++)
          for (int64_t t = 0; t < taps; t++)
            static_cast<T*>(s.gdepthwise[g])[c * taps + t] = total(first[g] + t * C + c);
      if (s.gpointwise)
        for (int64_t i = 0; i < C * C; i++)
          static_cast<T*>(s.gpointwise[g])[i] = total(first[s.groups] + g * C * C + i);
    }
  }

  // gx = scale * (gx - mean(gx) - xhat * mean(gx * xhat)), or scale * gx where the statistics are constants
  void through_normalisation(const std::vector<double>& sums, const std::vector<double>& products) const {
    const int64_t C = s.C, channels = s.inputs * C;
    const T* mean = static_cast<const T*>(s.mean);
    const T* scale = static_cast<const T*>(s.scale);
    std::vector<T> slope(channels, T(0)), offset(channels, T(0));
    if (s.batch_statistics)
      for (int64_t c = 0; c < channels; c++) {
        double sum = 0, product = 0;
        for (int64_t n = 0; n < s.N; n++) sum += sums[n * channels + c], product += products[n * channels + c];
        const double count = double(s.N) * s.H * s.W, factor = scale[c];
        slope[c] = T(-product / count * factor * factor * factor);
        offset[c] = T(-sum / count * factor);
      }
#pragma omp parallel for schedule(static) num_threads(s.threads)
    for (int64_t n = 0; n < s.N; n++)
      for (int64_t input = 0; input < s.inputs; input++) {
        const T* x = plane(n, input);
        T* gx = static_cast<T*>(s.gx) + (x - static_cast<const T*>(s.x));
        const int64_t from = input * C;
        by_vectors<T>(C, [&]<int W>(int64_t c) {
          const V<T, W> a = load<T, W>(scale + from + c), b = load<T, W>(&offset[from + c]),
                        d = load<T, W>(&slope[from + c]), centre = load<T, W>(mean + from + c);
          for (int64_t i = 0; i < s.H * s.W; i++) {
            T* to = gx + i * C + c;
            store<T, W>(to, load<T, W>(to) * a + b + (load<T, W>(x + i * C + c) - centre) * d);
          }
        });
      }
  }
};

}  // namespace

// ---------------------------------------------------------------------------------------------- mixture

// out_e = sum over terms t of a[t, n, e] * term_t + b[n, e], per channel. A term is (N, planes, H * W, C) with any
// strides but the channels'; one with a group stride of 0 is read by every edge.
struct Term {
  const void* data;
  int64_t sample, group, pixel;  // strides
  const void* factor;            // (N, edges, C)
  // backward only
  const void* mean;      // (groups, C) or null: taken off the term in `products`
  void* gradient;        // strides as the term's; null where it is not wanted
  const void* slope;     // (groups, C): what the term is multiplied by in its own gradient
  const void* constant;  // (groups, C)
  const void* second;    // strides as the term's, or null: another tensor in the term's gradient,
  const void* steepness;  // (groups, C): times this
  void* products;        // (N, edges, C): sum over the pixels of g_e * (term - mean)
};

struct Mixture {
  int64_t N, edges, pixels, C, terms, threads;
  const Term* term;
  const void* offset;       // (N, edges, C)
  void* const* out;         // per edge (N, pixels, C)
  const void* const* gout;  // per edge, as out
  void* sums;               // (N, edges, C): sum over the pixels of g_e
};

namespace {

template <typename T, int W>
inline const T* element(const Term& term, int64_t n, int64_t e, int64_t c) {
  return static_cast<const T*>(term.data) + n * term.sample + e * term.group + c;
}

template <typename T>
void mixture_forward(const Mixture& m) {
#pragma omp parallel for schedule(static) num_threads(m.threads)
  for (int64_t n = 0; n < m.N; n++)
    for (int64_t e = 0; e < m.edges; e++)
      by_vectors<T>(m.C, [&]<int W>(int64_t c) {
        const int64_t at = (n * m.edges + e) * m.C + c;
        T* out = static_cast<T*>(m.out[e]) + n * m.pixels * m.C + c;
        const V<T, W> offset = load<T, W>(static_cast<const T*>(m.offset) + at);
        for (int64_t first = 0; first == 0 || first < m.terms; first += 8) {  // eight factors fit into registers
          const int64_t count = std::min<int64_t>(8, m.terms - first);
          V<T, W> factor[8];
          const T* from[8];
          for (int64_t t = 0; t < count; t++) {
            const Term& term = m.term[first + t];
            factor[t] = load<T, W>(static_cast<const T*>(term.factor) + at);
            from[t] = element<T, W>(term, n, e, c);
          }
          for (int64_t i = 0; i < m.pixels; i++) {
            V<T, W> sum = first == 0 ? offset : load<T, W>(out + i * m.C);
            for (int64_t t = 0; t < count; t++) sum += factor[t] * load<T, W>(from[t] + i * m.term[first + t].pixel);
            store<T, W>(out + i * m.C, sum);
          }
        }
      });
}

// Per sample and edge the sums of g and of g * (term - mean).
template <typename T>
void mixture_sums(const Mixture& m) {
#pragma omp parallel for schedule(static) num_threads(m.threads)
  for (int64_t n = 0; n < m.N; n++)
    for (int64_t e = 0; e < m.edges; e++)
      by_vectors<T>(m.C, [&]<int W>(int64_t c) {
        const int64_t at = (n * m.edges + e) * m.C + c;
        const T* g = static_cast<const T*>(m.gout[e]) + n * m.pixels * m.C + c;
        V<T, W> sum[2] = {};
        for (int64_t i = 0; i < m.pixels; i++) sum[i & 1] += load<T, W>(g + i * m.C);
        store<T, W>(static_cast<T*>(m.sums) + at, sum[0] + sum[1]);
        for (int64_t t = 0; t < m.terms; t++) {
          const Term& term = m.term[t];
          const T* from = element<T, W>(term, n, e, c);
          const int64_t group = term.group ? e : 0;
          const V<T, W> mean =
              term.mean ? load<T, W>(static_cast<const T*>(term.mean) + group * m.C + c) : V<T, W>{};
          V<T, W> product[4] = {};
          int64_t i = 0;
          for (; i + 4 <= m.pixels; i += 4)
            for (int u = 0; u < 4; u++)
              product[u] += load<T, W>(g + (i + u) * m.C) * (load<T, W>(from + (i + u) * term.pixel) - mean);
          for (; i < m.pixels; i++) product[0] += load<T, W>(g + i * m.C) * (load<T, W>(from + i * term.pixel) - mean);
          store<T, W>(static_cast<T*>(term.products) + at, (product[0] + product[1]) + (product[2] + product[3]));
        }
      });
}

// gradient of a term = sum over its edges of factor_e * g_e + constant + slope * (term - mean) + steepness * second
template <typename T>
void mixture_backward(const Mixture& m) {
#pragma omp parallel for schedule(static) num_threads(m.threads)
  for (int64_t n = 0; n < m.N; n++)
    for (int64_t t = 0; t < m.terms; t++) {
      const Term& term = m.term[t];
      if (!term.gradient) continue;
      const int64_t groups = term.group ? m.edges : 1;
      for (int64_t group = 0; group < groups; group++)
        by_vectors<T>(m.C, [&]<int W>(int64_t c) {
          const T* from = element<T, W>(term, n, group, c);
          T* to = static_cast<T*>(term.gradient) + (from - static_cast<const T*>(term.data));
          const int64_t own = group * m.C + c, first = term.group ? group : 0, last = term.group ? group + 1 : m.edges;
          const V<T, W> mean = term.mean ? load<T, W>(static_cast<const T*>(term.mean) + own) : V<T, W>{};
          const V<T, W> slope = term.slope ? load<T, W>(static_cast<const T*>(term.slope) + own) : V<T, W>{};
          const V<T, W> constant = term.constant ? load<T, W>(static_cast<const T*>(term.constant) + own) : V<T, W>{};
          if (term.second) {
            const T* second = static_cast<const T*>(term.second) + (from - static_cast<const T*>(term.data));
            const V<T, W> steepness = load<T, W>(static_cast<const T*>(term.steepness) + own);
            for (int64_t i = 0; i < m.pixels; i++)
              store<T, W>(to + i * term.pixel, constant + slope * (load<T, W>(from + i * term.pixel) - mean) +
                                                   steepness * load<T, W>(second + i * term.pixel));
          }
          for (int64_t e = first; e < last; e += 4) {  // four edges at a time, as far as there are so many
            const int64_t count = std::min<int64_t>(4, last - e);
            const T* g[4];
            V<T, W> factor[4];
            for (int64_t k = 0; k < 4; k++) {
              const int64_t edge = e + std::min(k, count - 1);
              g[k] = static_cast<const T*>(m.gout[edge]) + n * m.pixels * m.C + c;
              factor[k] = load<T, W>(static_cast<const T*>(term.factor) + (n * m.edges + edge) * m.C + c);
              if (k >= count) factor[k] = V<T, W>{};
            }
            if (last - first == 1 && !term.second) {
              for (int64_t i = 0; i < m.pixels; i++)
                store<T, W>(to + i * term.pixel, constant + slope * (load<T, W>(from + i * term.pixel) - mean) +
                                                     factor[0] * load<T, W>(g[0] + i * m.C));
              continue;
            }
            for (int64_t i = 0; i < m.pixels; i++) {
              V<T, W> sum = e == first && !term.second ? constant + slope * (load<T, W>(from + i * term.pixel) - mean)
                                       : load<T, W>(to + i * term.pixel);
              for (int k = 0; k < 4; k++) sum += factor[k] * load<T, W>(g[k] + i * m.C);
              store<T, W>(to + i * term.pixel, sum);
            }
          }
        });
    }
}

// ---------------------------------------------------------------------------------------------- pairs of tensors

}  // namespace

// Per sample, group and channel the sums of v and of v * (x - mean), x and v (N, groups, pixels, C) with equal strides.
struct Pair {
  int64_t N, groups, pixels, C, sample, group, pixel, threads;
  const void *x, *v, *mean;  // mean (groups, C)
  void *sums, *products;     // (N, groups, C)
};

namespace {

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

// ---------------------------------------------------------------------------------------------- pooling

struct Window {
  int64_t first, last;
};
inline Window window(int64_t at, int64_t stride, int64_t size) {
  return {std::max<int64_t>(at * stride - 1, 0), std::min(at * stride + 2, size)};
}

}  // namespace

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

namespace {

// The comparisons of vectors give whole numbers of their elements' size; so is the place of a maximum kept in registers.
template <typename T>
using Whole = std::conditional_t<sizeof(T) == 8, int64_t, std::int32_t>;

template <typename T, int W>
inline void pool_piece(const Pooling& p, const T* x, int64_t y, int64_t i, T* maximum, T* mean, unsigned char* argument) {
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

// The values of x where the maxima were, and x's means: how the poolings move when their input moves by x.
template <typename T>
void pooling_motion(const Pooling& p) {
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

template <typename T>
void statistics(int64_t N, int64_t pixels, int64_t C, const T* x, T* mean, T* variance, int64_t threads) {
  std::vector<double> sums(N * C), squares(N * C);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t n = 0; n < N; n++)
    plane_statistics<T>(x + n * pixels * C, pixels, C, C, &sums[n * C], &squares[n * C]);
  combine_statistics<T>(N, C, pixels, sums.data(), squares.data(), mean, variance);
}

}  // namespace

// ---------------------------------------------------------------------------------------------- depthwise alone

// x (N, H, W, C), weight (C, k, k), y (N, Ho, Wo, C), all but one of the last three an input.
struct Convolution {
  int64_t N, C, H, W, Ho, Wo, stride, threads;
  Group group;
  void *x, *weight, *y;
};

namespace {

template <typename T>
struct Alone {
  const Convolution& s;
  int64_t in_margin, out_margin;

  explicit Alone(const Convolution& s) : s(s) {
    const int64_t span = s.group.dilation * (s.group.kernel - 1), before = s.group.padding;
    in_margin = std::max({before, (s.Ho - 1) * s.stride - before + span - s.H + 1,
                          (s.Wo - 1) * s.stride - before + span - s.W + 1, int64_t(0)});
    out_margin = std::max({span - before, before, int64_t(0)});
  }

  static void fill(Padded<T>& to, const T* from) {
    for (int64_t y = 0; y < to.H; y++) std::memcpy(to.at(y, 0), from + y * to.W * to.C, to.W * to.C * sizeof(T));
  }

  void run(int what) const {  // 0: y, 1: x's gradient, 2: the weight's
    const int64_t in_size = s.H * s.W * s.C, out_size = s.Ho * s.Wo * s.C, taps = s.group.kernel * s.group.kernel;
    T *x = static_cast<T*>(s.x), *y = static_cast<T*>(s.y), *weight = static_cast<T*>(s.weight);
    const std::vector<T> nothing(taps * s.C, T(0));
    const Depthwise<T> layer(s.group, s.stride, s.Ho, s.Wo, s.C, what == 2 ? nothing.data() : weight);
    std::vector<T> gradients(what == 2 ? s.threads * taps * s.C : 0, T(0));
#pragma omp parallel num_threads(s.threads)
    {
      Padded<T> in(s.H, s.W, s.C, in_margin), out(s.Ho, s.Wo, s.C, what == 0 ? 0 : out_margin);
#pragma omp for schedule(static)
      for (int64_t n = 0; n < s.N; n++) {
        if (what != 1) fill(in, x + n * in_size);
        if (what != 0) fill(out, y + n * out_size);
        if (what == 0) layer.forward(in, y + n * out_size);
        if (what == 1) {
          std::fill(in.data.begin(), in.data.end(), T(0));
          layer.backward_input(out, in);
          for (int64_t r = 0; r < s.H; r++)
            std::memcpy(x + n * in_size + r * s.W * s.C, in.at(r, 0), s.W * s.C * sizeof(T));
        }
        if (what == 2) layer.backward_weight(in, out, gradients.data() + thread_number() * taps * s.C);
      }
    }
    if (what == 2)
      for (int64_t c = 0; c < s.C; c++)
        for (int64_t t = 0; t < taps; t++) {
          T sum = 0;
          for (int64_t thread = 0; thread < s.threads; thread++) sum += gradients[(thread * taps + t) * s.C + c];
          weight[c * taps + t] = sum;
        }
  }
};

}  // namespace

// ---------------------------------------------------------------------------------------------- activations

// out = sum over options of factors * f(z), where z = gain * (y - mean) + shift and f is one of `Function`; y and out
// (N, pixels, C), the rest per channel.
struct Activation {
  int64_t N, pixels, C, options, threads;
  const int64_t* function;
  const void *y, *mean, *gain, *shift, *factors;  // factors (options, C)
  void* out;
  // backward: out is the gradient of z, where it is wanted; sums of each sample
  const void* g;
  void *sums, *moments;  // (N, options, C) or null: the factors' gradient; (2, N, C): out, plain and times y - mean
  // Second backward: z moves by along * vy + tilt * (y - mean) + offset, the factors by vfactors, if not null. With h1
  // and h2 the gradients of z and of its motion, out = weight * h1 + vweight * h2 and moving = weight * h2.
  const void *vy, *along, *tilt, *offset, *vfactors, *weight, *vweight;
  void *motion, *moving;  // how the value moves; moments are (5, N, C): h1 and h2, plain and times y - mean, h2 times vy
};

namespace {

enum Function { relu, sigmoid, tanh, gelu, silu, elu, softplus };

template <typename T, int W>
struct Exponential {
  V<T, W> power, rest;  // e^x = power * (1 + rest), so that e^x - 1 keeps its digits near 0

  explicit Exponential(V<T, W> x) {
    constexpr bool wide = sizeof(T) == 8;
    constexpr T largest = wide ? T(708) : T(87), magic = wide ? T(6755399441055744.0) : T(12582912);
    x = x > largest ? V<T, W>{} + largest : x;
    x = x < -largest ? V<T, W>{} - largest : x;
    const V<T, W> shifted = x * T(1.4426950408889634) + magic, k = shifted - magic;  // the nearest whole number
    const V<T, W> r = x - k * T(wide ? 0.6931471803691238 : 0.693359375) -
                      k * T(wide ? 1.9082149292705877e-10 : -2.12194440e-4);
    constexpr int terms = wide ? 13 : 7;
    V<T, W> sum = V<T, W>{} + T(1);  // 1 + r / 2 (1 + r / 3 (1 + ...))
    for (int n = terms; n > 1; n--) sum = T(1) + sum * r * T(1.0 / n);
    rest = sum * r;
    const auto bits = reinterpret_cast<const V<Whole<T>, W>&>(shifted);
    const V<Whole<T>, W> exponent = (bits + Whole<T>(wide ? 1023 : 127)) << (wide ? 52 : 23);
    power = reinterpret_cast<const V<T, W>&>(exponent);
  }
  V<T, W> value() const { return power + power * rest; }
  V<T, W> minus_one() const { return power * rest + (power - T(1)); }
};

template <typename T, int W>
inline V<T, W> exponential(V<T, W> x) {
  return Exponential<T, W>(x).value();
}

// log(1 + u) for u in 0..1
template <typename T, int W>
inline V<T, W> log_one_plus(V<T, W> u) {
  const V<T, W> r = u / (T(2) + u), square = r * r;
  V<T, W> sum{};
  for (int n = sizeof(T) == 8 ? 33 : 15; n > 0; n -= 2) sum = sum * square + T(1.0 / n);
  return T(2) * r * sum;
}

// The normal distribution function: erfc(x) = t * exp(P(t) - x^2) with t = 2 / (2 + x), P by its Chebyshev coefficients.
template <typename T, int W>
inline V<T, W> normal_distribution(V<T, W> z) {
  constexpr double coefficients[] = {
      -0.6513268598908549,    0.6419697923564902,     0.019476473204185846,   -0.009561514786808754,
      -0.0009465953444820329, 0.00036683949785270425, 4.252332480689583e-05,  -2.0278578112506093e-05,
      -1.6242900046526537e-06, 1.3036558354790478e-06, 1.56264418037233e-08,   -8.523809610742894e-08,
      6.529054612930407e-09,  5.05934338174141e-09,   -9.913639978376132e-10, -2.273650295814278e-10,
      9.646775739335922e-11,  2.3940866650251635e-12, -6.886114942150634e-12, 8.945604673682439e-13,
      3.1274635658995464e-13, -1.1241875487067698e-13, -1.1796119636642288e-16, 7.379513666805337e-15};
  const V<T, W> x = (z < T(0) ? -z : z) * T(0.7071067811865476), t = T(2) / (T(2) + x), u = T(2) * t - T(1);
  V<T, W> last{}, before{};
  for (int n = sizeof(T) == 8 ? 23 : 13; n > 0; n--) {
    const V<T, W> next = T(2) * u * last - before + T(coefficients[n]);
    before = last, last = next;
  }
  const V<T, W> half = T(0.5) * t * exponential<T, W>(u * last - before + T(coefficients[0]) - x * x);
  return z < T(0) ? half : T(1) - half;
}

template <typename T, int W>
struct Derivatives {
  V<T, W> value, first, second;

  Derivatives(int64_t function, V<T, W> z) {
    const V<T, W> zero{}, one = zero + T(1);
    const auto right = z > T(0);
    switch (function) {
      case relu:
        value = z < T(0) ? zero : z, first = right ? one : zero, second = zero;  // a NaN is passed on
        break;
      case sigmoid: {
        value = T(1) / (T(1) + exponential<T, W>(-z));
        first = value * (T(1) - value), second = first * (T(1) - T(2) * value);
        break;
      }
      case tanh: {
        const V<T, W> e = Exponential<T, W>(T(2) * z).minus_one();
        value = e / (e + T(2)), first = T(1) - value * value, second = T(-2) * value * first;
        break;
      }
      case gelu: {
        const V<T, W> share = normal_distribution<T, W>(z);
        const V<T, W> density = T(0.3989422804014327) * exponential<T, W>(T(-0.5) * z * z);
        value = z * share, first = share + z * density, second = density * (T(2) - z * z);
        break;
      }
      case silu: {
        const V<T, W> s = T(1) / (T(1) + exponential<T, W>(-z)), slope = s * (T(1) - s);
        value = z * s, first = s + z * slope, second = slope * (T(2) + z * (T(1) - T(2) * s));
        break;
      }
      case elu: {
        const Exponential<T, W> e(z);
        value = right ? z : e.minus_one(), first = right ? one : e.value(), second = right ? zero : e.value();
        break;
      }
      default: {  // softplus, which PyTorch takes for the identity beyond 20
        const V<T, W> e = exponential<T, W>(z < T(0) ? z : -z), s = (z < T(0) ? e : one) / (T(1) + e);
        const auto straight = z > T(20);
        value = straight ? z : (right ? z : zero) + log_one_plus<T, W>(e);
        first = straight ? one : s, second = straight ? zero : s * (T(1) - s);
      }
    }
  }
};

constexpr int most_options = 8;  // of a layer's activations

template <typename T, int pass>  // 0 the value, 1 its gradient, 2 that one's
void activation(const Activation& p) {
  constexpr int moments = pass == 0 ? 0 : pass == 1 ? 2 : 5;
  const int64_t block = 64 * p.C, size = p.pixels * p.C;  // as much as the first cache holds
#pragma omp parallel for schedule(static) num_threads(p.threads)
  for (int64_t n = 0; n < p.N; n++)
    for (int64_t begin = 0; begin < size; begin += block)
      by_vectors<T>(p.C, [&]<int W>(int64_t c) {
        const auto image = [&](const void* of) { return of ? static_cast<const T*>(of) + n * size + c : nullptr; };
        const auto channel = [&](const void* of, int64_t row = 0) {
          return of ? load<T, W>(static_cast<const T*>(of) + row * p.C + c) : V<T, W>{};
        };
        const auto add = [&](void* to, int64_t row, V<T, W> sum) {
          T* at = static_cast<T*>(to) + row * p.C + c;
          store<T, W>(at, begin == 0 ? sum : load<T, W>(at) + sum);
        };
        const T *y = image(p.y), *g = image(p.g), *vy = image(p.vy);
        T *out = const_cast<T*>(image(p.out)), *motion = const_cast<T*>(image(p.motion)),
          *moving = const_cast<T*>(image(p.moving));
        const V<T, W> mean = channel(p.mean), gain = channel(p.gain), shift = channel(p.shift),
                      along = channel(p.along), tilt = channel(p.tilt), offset = channel(p.offset),
                      weight = channel(p.weight), vweight = channel(p.vweight);
        V<T, W> factor[most_options], direction[most_options], sum[most_options] = {}, moment[5] = {};
        for (int64_t a = 0; a < p.options; a++)
          factor[a] = channel(p.factors, a), direction[a] = channel(p.vfactors, a);
        for (int64_t i = begin; i < std::min(begin + block, size); i += p.C) {
          const V<T, W> centred = load<T, W>(y + i) - mean, z = gain * centred + shift;
          V<T, W> back{}, direction_of_y{}, moved{};
          if (pass > 0) back = load<T, W>(g + i);
          if (pass > 1) direction_of_y = load<T, W>(vy + i), moved = along * direction_of_y + tilt * centred + offset;
          V<T, W> value{}, first{}, second{}, value_along{}, first_along{};
          for (int64_t a = 0; a < p.options; a++) {
            const Derivatives<T, W> f(p.function[a], z);
            value += factor[a] * f.value, first += factor[a] * f.first;
            if (pass == 1) sum[a] += back * f.value;
            if (pass > 1) {
              sum[a] += back * moved * f.first;
              second += factor[a] * f.second;
              value_along += direction[a] * f.value, first_along += direction[a] * f.first;
            }
          }
          if (pass == 0) store<T, W>(out + i, value);
          if (pass == 1) {
            const V<T, W> h = back * first;
            if (out) store<T, W>(out + i, h);
            moment[0] += h, moment[1] += h * centred;
          }
          if (pass > 1) {
            const V<T, W> h1 = back * (second * moved + first_along), h2 = back * first;
            if (motion) store<T, W>(motion + i, first * moved + value_along);
            if (out) store<T, W>(out + i, weight * h1 + vweight * h2), store<T, W>(moving + i, weight * h2);
            moment[0] += h1, moment[1] += h1 * centred;
            moment[2] += h2, moment[3] += h2 * centred, moment[4] += h2 * direction_of_y;
          }
        }
        for (int m = 0; m < moments; m++) add(p.moments, m * p.N + n, moment[m]);
        for (int64_t a = 0; p.sums && a < p.options; a++) add(p.sums, n * p.options + a, sum[a]);
      });
}

}  // namespace

// ---------------------------------------------------------------------------------------------- mixed poolings

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

namespace {

// Calls body(s, rows, columns, top, left) for every size's window around the output at (y, i).
template <typename Body>
inline void windows(const Pools& p, int64_t y, int64_t i, Body&& body) {
  for (int64_t s = 0; s < p.sizes; s++) {
    const int64_t size = p.size[s], top = y * p.stride - (size - 1) / 2, left = i * p.stride - (size - 1) / 2;
    body(s, Window{std::max<int64_t>(top, 0), std::min(top + size, p.H)},
         Window{std::max<int64_t>(left, 0), std::min(left + size, p.W)}, top, left);
  }
}

// The value where each maximum was found and the mean, of every size: body(s, maximum, mean).
template <typename T, int W, typename Body>
inline void pooled(const Pools& p, int64_t n, int64_t y, int64_t i, int64_t c, bool search, Body&& body) {
  const T* x = static_cast<const T*>(p.x) + n * p.H * p.W * p.C + c;
  windows(p, y, i, [&](int64_t s, Window rows, Window columns, int64_t top, int64_t left) {
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
          windows(p, y, i, [&](int64_t s, Window rows, Window columns, int64_t top, int64_t left) {
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

#define BOTH_TYPES(NAME, ARGUMENT, FLOAT, DOUBLE)                     \
  extern "C" void NAME(const ARGUMENT* settings, int64_t is_double) { \
    if (is_double) {                                                  \
      DOUBLE;                                                         \
    } else {                                                          \
      FLOAT;                                                          \
    }                                                                 \
  }

BOTH_TYPES(separable_forward, Separable, SeparableLayer<float>(*settings).forward(),
           SeparableLayer<double>(*settings).forward())
BOTH_TYPES(separable_backward, Separable, SeparableLayer<float>(*settings).backward(),
           SeparableLayer<double>(*settings).backward())
BOTH_TYPES(mix_forward, Mixture, mixture_forward<float>(*settings), mixture_forward<double>(*settings))
BOTH_TYPES(mix_sums, Mixture, mixture_sums<float>(*settings), mixture_sums<double>(*settings))
BOTH_TYPES(mix_backward, Mixture, mixture_backward<float>(*settings), mixture_backward<double>(*settings))
BOTH_TYPES(pool_forward, Pooling, pooling_forward<float>(*settings), pooling_forward<double>(*settings))
BOTH_TYPES(pool_backward, Pooling, pooling_backward<float>(*settings), pooling_backward<double>(*settings))
BOTH_TYPES(separable_second_backward, Separable, SeparableLayer<float>(*settings).second_backward(),
           SeparableLayer<double>(*settings).second_backward())
BOTH_TYPES(pool_motion, Pooling, pooling_motion<float>(*settings), pooling_motion<double>(*settings))
BOTH_TYPES(sum_pairs, Pair, pair_sums<float>(*settings), pair_sums<double>(*settings))
BOTH_TYPES(combine, Combination, combined<float>(*settings), combined<double>(*settings))
BOTH_TYPES(depthwise_forward, Convolution, Alone<float>(*settings).run(0), Alone<double>(*settings).run(0))
BOTH_TYPES(depthwise_backward_input, Convolution, Alone<float>(*settings).run(1), Alone<double>(*settings).run(1))
BOTH_TYPES(depthwise_backward_weight, Convolution, Alone<float>(*settings).run(2), Alone<double>(*settings).run(2))
BOTH_TYPES(activation_forward, Activation, (activation<float, 0>(*settings)), (activation<double, 0>(*settings)))
BOTH_TYPES(activation_backward, Activation, (activation<float, 1>(*settings)), (activation<double, 1>(*settings)))
BOTH_TYPES(activation_second_backward, Activation, (activation<float, 2>(*settings)),
           (activation<double, 2>(*settings)))
BOTH_TYPES(pools_search, Pools, pools<float>(*settings, true), pools<double>(*settings, true))
BOTH_TYPES(pools_value, Pools, pools<float>(*settings, false), pools<double>(*settings, false))
BOTH_TYPES(pools_adjoint, Pools, pools_adjoint<float>(*settings), pools_adjoint<double>(*settings))
BOTH_TYPES(pools_products, Pools, pools_products<float>(*settings), pools_products<double>(*settings))

// Mean and biased variance per channel of x (N, pixels, C).
extern "C" void channel_statistics(int64_t N, int64_t pixels, int64_t C, const void* x, void* mean, void* variance,
                                   int64_t threads, int64_t is_double) {
  if (is_double)
    statistics<double>(N, pixels, C, static_cast<const double*>(x), static_cast<double*>(mean),
                       static_cast<double*>(variance), threads);
  else
    statistics<float>(N, pixels, C, static_cast<const float*>(x), static_cast<float*>(mean),
                      static_cast<float*>(variance), threads);
}
