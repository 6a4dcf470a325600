// The depthwise convolution of one plane, and its gradients.

#pragma once
#include "vectors.h"

namespace {

struct Group {  // of channels that share a kernel size: an operation on an edge
  int64_t kernel, dilation, padding;
};

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

}  // namespace
