// Edges of a recurrent search cell that leave one state, with first and second derivatives.

#include "vectors.h"

namespace {

// out = carried + q s + G (m - q s) with G = sigmoid(c), m = sum over functions of factor * f(z), q = sum of the factors;
// s (batch, width), [c, z] (batch, edges, 2, width), factors (edges, 4): tanh, relu, sigmoid, identity. The first edge's
// out is one tensor (batch, width), those of the others another (batch, edges - 1, width); so are their gradients. Without
// carried, nothing is.
struct GatedMixture {
  int64_t batch, edges, width, threads;
  const void *state, *product, *factors, *carried;
  void *first, *rest;  // forward: out; second backward: its tangent, where it is wanted
  const void *gfirst, *grest;
  void *gstate, *gproduct, *gfactors, *gcarried;  // gfactors (batch, edges, 4), per sample
  const void *vstate, *vproduct, *vfactors, *vcarried;  // the directions of the second backward pass
  const void *hfirst, *hrest;                           // and the gradients of out itself there, out of its tangent's
};

template <typename T, int W>
inline T across(V<T, W> v) {
  T sum = 0;
  for (int i = 0; i < W; i++) sum += v[i];
  return sum;
}

// Sums over a row, one per function: those of whole vectors are added up at the end, once.
template <typename T, int functions>
struct Sums {
  V<T, widest<T>> wide[functions] = {};
  T rest[functions] = {};
  template <int W>
  inline void add(int k, V<T, W> v) {
    if constexpr (W == widest<T>)
      wide[k] += v;
    else
      rest[k] += across<T, W>(v);
  }
  inline T total(int k) const { return across<T, widest<T>>(wide[k]) + rest[k]; }
};

template <typename T, int pass>  // 0 the value, 1 its gradient, 2 that one's
void gated_mixture(const GatedMixture& p) {
  constexpr int functions = 4;
  const int64_t width = p.width, edges = p.edges;
#pragma omp parallel for schedule(static) num_threads(p.threads) if (p.threads > 1)
  for (int64_t b = 0; b < p.batch; b++)
    for (int64_t e = 0; e < edges; e++) {
      const auto of = [&](const void* whole, int64_t row) {
        return whole ? static_cast<const T*>(whole) + row * width : nullptr;
      };
      const auto edge = [&](const void* first, const void* rest) {
        return e ? of(rest, b * (edges - 1) + e - 1) : of(first, b);
      };
      const int64_t row = b * edges + e;
      const T *s = of(p.state, b), *c = of(p.product, 2 * row), *z = of(p.product, 2 * row + 1),
              *carried = of(p.carried, row), *g = edge(p.gfirst, p.grest), *vs = of(p.vstate, b),
              *vc = of(p.vproduct, 2 * row), *vz = of(p.vproduct, 2 * row + 1), *vr = of(p.vcarried, row),
              *h = edge(p.hfirst, p.hrest);
      T *out = const_cast<T*>(edge(p.first, p.rest)), *gs = const_cast<T*>(of(p.gstate, b)),
        *gc = const_cast<T*>(of(p.gproduct, 2 * row)), *gz = const_cast<T*>(of(p.gproduct, 2 * row + 1)),
        *gr = const_cast<T*>(of(p.gcarried, row));
      const T* factor = static_cast<const T*>(p.factors) + e * functions;
      const T* direction = pass > 1 ? static_cast<const T*>(p.vfactors) + e * functions : nullptr;
      T q = 0, vq = 0;
      Sums<T, functions> sums;
      for (int k = 0; k < functions; k++) q += factor[k], vq += pass > 1 ? direction[k] : T(0);
      by_vectors<T>(width, [&]<int W>(int64_t i) {
        const auto or_zero = [&](const T* from) { return from ? load<T, W>(from + i) : V<T, W>{}; };
        const V<T, W> one = V<T, W>{} + T(1), x = load<T, W>(s + i), v = load<T, W>(z + i);
        const V<T, W> gate = Derivatives<T, W>(sigmoid, load<T, W>(c + i)).value, open = gate * (one - gate);
        V<T, W> value[functions], slope[functions], bend[functions];
        // Both saturate far before the bound, beyond which the square of the exponential would overflow.
        constexpr T bound = sizeof(T) == 8 ? T(350) : T(43);
        const V<T, W> within = v > bound ? V<T, W>{} + bound : v < -bound ? V<T, W>{} - bound : v;
        const V<T, W> power = exponential<T, W>(within), square = power * power;
        const auto right = v > T(0);
        value[0] = (square - one) / (square + one), slope[0] = one - value[0] * value[0];
        bend[0] = T(-2) * value[0] * slope[0];
        value[1] = v < T(0) ? V<T, W>{} : v, slope[1] = right ? one : V<T, W>{}, bend[1] = V<T, W>{};
        value[2] = power / (one + power), slope[2] = value[2] * (one - value[2]);
        bend[2] = slope[2] * (one - value[2] - value[2]);
        value[3] = v, slope[3] = one, bend[3] = V<T, W>{};
        V<T, W> m{}, slopes{};
        for (int k = 0; k < functions; k++) m += factor[k] * value[k], slopes += factor[k] * slope[k];
        const V<T, W> apart = m - q * x;
        if (pass == 0) store<T, W>(out + i, or_zero(carried) + q * x + gate * apart);
        if (pass == 1) {
          const V<T, W> back = load<T, W>(g + i);
          if (gs) {
            const V<T, W> own = back * q * (one - gate);
            store<T, W>(gs + i, e ? load<T, W>(gs + i) + own : own);
          }
          if (gc) store<T, W>(gc + i, back * open * apart), store<T, W>(gz + i, back * gate * slopes);
          if (gr) store<T, W>(gr + i, back);
          if (p.gfactors)
            for (int k = 0; k < functions; k++) sums.template add<W>(k, back * (x + gate * (value[k] - x)));
        }
        if (pass > 1) {
          const V<T, W> back = load<T, W>(g + i), ws = load<T, W>(vs + i), wc = load<T, W>(vc + i),
                        wz = load<T, W>(vz + i), own = or_zero(h);
          V<T, W> bends{}, along{}, slopes_along{};
          for (int k = 0; k < functions; k++)
            bends += factor[k] * bend[k], along += direction[k] * value[k], slopes_along += direction[k] * slope[k];
          const V<T, W> moved = slopes * wz + along, of_state = q * ws + vq * x;
          if (out)
            store<T, W>(out + i, or_zero(vr) + of_state * (one - gate) + open * apart * wc + gate * moved);
          if (gs) {
            const V<T, W> sum = back * (vq * (one - gate) - open * q * wc) + own * q * (one - gate);
            store<T, W>(gs + i, e ? load<T, W>(gs + i) + sum : sum);
          }
          if (gc) {
            const V<T, W> turned = moved - of_state + (one - gate - gate) * apart * wc;
            store<T, W>(gc + i, open * (back * turned + own * apart));
            store<T, W>(gz + i, back * (open * slopes * wc + gate * (bends * wz + slopes_along)) + own * gate * slopes);
          }
          if (gr) store<T, W>(gr + i, own);
          if (p.gfactors)
            for (int k = 0; k < functions; k++) {
              const V<T, W> apart_of = value[k] - x;
              sums.template add<W>(k, back * (ws * (one - gate) + open * apart_of * wc + gate * slope[k] * wz) +
                                          own * (x + gate * apart_of));
            }
        }
      });
      for (int k = 0; p.gfactors && k < functions; k++) static_cast<T*>(p.gfactors)[row * functions + k] = sums.total(k);
    }
}

}  // namespace

EXPORT(gated_mixture_forward, GatedMixture, (gated_mixture<T, 0>(settings)))
EXPORT(gated_mixture_backward, GatedMixture, (gated_mixture<T, 1>(settings)))
EXPORT(gated_mixture_second_backward, GatedMixture, (gated_mixture<T, 2>(settings)))
