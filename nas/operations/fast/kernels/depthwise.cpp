// A depthwise convolution on its own, and its two gradients.

#include "depthwise.h"

namespace {

// x (N, H, W, C), weight (C, k, k), y (N, Ho, Wo, C), all but one of the last three an input.
struct Convolution {
  int64_t N, C, H, W, Ho, Wo, stride, threads;
  Group group;
  void *x, *weight, *y;
};

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

EXPORT(depthwise_forward, Convolution, Alone<T>(settings).run(0))
EXPORT(depthwise_backward_input, Convolution, Alone<T>(settings).run(1))
EXPORT(depthwise_backward_weight, Convolution, Alone<T>(settings).run(2))
