// ReLU, depthwise and pointwise convolution, with their first and second derivatives.

#include "depthwise.h"
#include "matrix_product.h"
#include "statistics.h"

namespace {

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
  // Second backward only: directions of x and of the weights. The normalised input's tangent is
  // along * vx + across * (x - mean) + shift, per input and channel; `along` and the others are null without mean.
  const void* vx;
  const void* const* vdepthwise;
  const void* const* vpointwise;
  const void *along, *across, *shift;
  void* ty;  // as y: its tangent; the gradients are those of <gy, ty>
  void* second;  // as x, null without mean: the gradient with respect to the normalised input's tangent
  void* moments;  // (5, N, inputs, C): sums of h1, h1 u, h2, h2 u, h2 vx, where u = x - mean
};

template <typename T>
struct SeparableLayer {
  const Separable& s;
  std::vector<Depthwise<T>> layers;
  int64_t in_margin = 0, out_margin = 0;
  std::vector<int64_t> first{0};  // where a group's depthwise kernel begins in a thread's sums, then the pointwise ones
  int64_t per_thread;             // length of these sums

  explicit SeparableLayer(const Separable& s) : s(s) {
    for (int64_t g = 0; g < s.groups; g++) {
      const Group& group = s.group[g];
      layers.emplace_back(group, s.stride, s.Ho, s.Wo, s.C, static_cast<const T*>(s.depthwise[g]));
      const int64_t span = group.dilation * (group.kernel - 1);
      in_margin = std::max({in_margin, group.padding, span - group.padding,
                            (s.Ho - 1) * s.stride - group.padding + span - s.H + 1,
                            (s.Wo - 1) * s.stride - group.padding + span - s.W + 1});
      out_margin = std::max({out_margin, span - group.padding, group.padding});
      first.push_back(first[g] + group.kernel * group.kernel * s.C);
    }
    per_thread = first[s.groups] + s.groups * s.C * s.C;
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

  // The matrices (C in, C out) of all groups.
  std::vector<T> transposed(const void* const* matrices) const {
    std::vector<T> result(s.groups * s.C * s.C);
    for (int64_t g = 0; g < s.groups; g++)
      for (int64_t o = 0; o < s.C; o++)
        for (int64_t i = 0; i < s.C; i++)
          result[(g * s.C + i) * s.C + o] = static_cast<const T*>(matrices[g])[o * s.C + i];
    return result;
  }

  void forward() const {
    const int64_t C = s.C, out = s.Ho * s.Wo, plane_size = out * C;
    const std::vector<T> pointwise = transposed(s.pointwise);
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
          multiply<T>(out, C, C, filtered.data(), C, 1, &pointwise[g * C * C], C, y, C, false);
          plane_statistics<T>(y, out, C, C, &sums[at * C], &squares[at * C]);
        }
    }
    combine_statistics<T>(s.N, s.groups * C, out, sums.data(), squares.data(), static_cast<T*>(s.y_mean),
                          static_cast<T*>(s.y_variance));
  }

  void backward() const {
    const int64_t C = s.C, out = s.Ho * s.Wo, plane_size = out * C;
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
    write_weight_gradients(gradients);
  }

  // gx = gradient with respect to the normalised input, and per sample its sums, plain and times (x - mean)
  void through_activation(int64_t n, int64_t input, Padded<T>& z, Padded<T>& gz, std::vector<double>& sums,
                          std::vector<double>& products) const {
    const int64_t C = s.C, at = n * s.inputs + input;
    T* gx = static_cast<T*>(s.gx) + at * s.H * s.W * C;
    masked(z, gz, gx);
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

  // The first derivative of <gy, ty>, where ty is y's tangent along (vx, vdepthwise, vpointwise). With mean, gx and
  // `second` are the gradients with respect to the normalised input and to its tangent.
  void second_backward() const {
    const int64_t C = s.C, out = s.Ho * s.Wo, plane_size = out * C, in_size = s.H * s.W * C;
    const std::vector<T> pointwise = transposed(s.pointwise), vpointwise = transposed(s.vpointwise);
    std::vector<T> gradients(s.threads * per_thread, T(0));
    std::vector<Depthwise<T>> moving;
    for (int64_t g = 0; g < s.groups; g++)
      moving.emplace_back(s.group[g], s.stride, s.Ho, s.Wo, C, static_cast<const T*>(s.vdepthwise[g]));
    T *gx = static_cast<T*>(s.gx), *tangent_gradient = static_cast<T*>(s.second);
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
            tangent(n, input, z, zt);
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
            multiply<T>(out, C, C, moved.data(), C, 1, &pointwise[g * C * C], C, ty, C, false);
            multiply<T>(out, C, C, filtered.data(), C, 1, &vpointwise[g * C * C], C, ty, C, true);
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
          if (tangent_gradient) layers[g].backward_input(gd, gzt);
          if (!ends) continue;
          masked(z, gz, gx + at * in_size);
          if (tangent_gradient) {
            masked(z, gzt, tangent_gradient + at * in_size);
            second_moments(n, input);
          }
        }
    }
    write_weight_gradients(gradients);
  }

  // zt = the activated input's tangent, zero where the ReLU is
  void tangent(int64_t n, int64_t input, Padded<T>& z, Padded<T>& zt) const {
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
    const T* h1 = static_cast<const T*>(s.gx) + at * pixels * C;
    const T* h2 = static_cast<const T*>(s.second) + at * pixels * C;
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

  void write_weight_gradients(const std::vector<T>& gradients) const {
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

EXPORT(separable_forward, Separable, SeparableLayer<T>(settings).forward())
EXPORT(separable_backward, Separable, SeparableLayer<T>(settings).backward())
EXPORT(separable_second_backward, Separable, SeparableLayer<T>(settings).second_backward())
