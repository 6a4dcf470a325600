// Batch norm, a weighted sum of activation functions and a mask of channels, with first and second derivatives.

#include "vectors.h"

namespace {

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
  // Second backward: z has the tangent along * vy + tilt * (y - mean) + offset, the factors vfactors, if not null. With h1
  // and h2 the gradients of z and of its tangent, out = weight * h1 + vweight * h2 and moving = weight * h2.
  const void *vy, *along, *tilt, *offset, *vfactors, *weight, *vweight;
  void *tangent, *moving;  // tangent: the value's; moments are (5, N, C): h1, h2, plain and times y - mean, h2 times vy
};

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

// The normal distribution function: erfc(x) = t * exp(P(t) - x^2), t = 2 / (2 + x), P by its Chebyshev coefficients.
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
        T *out = const_cast<T*>(image(p.out)), *tangent = const_cast<T*>(image(p.tangent)),
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
            if (tangent) store<T, W>(tangent + i, first * moved + value_along);
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

EXPORT(activation_forward, Activation, (activation<T, 0>(settings)))
EXPORT(activation_backward, Activation, (activation<T, 1>(settings)))
EXPORT(activation_second_backward, Activation, (activation<T, 2>(settings)))
