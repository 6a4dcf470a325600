// The weighted sums of all operations on the edges that leave one state.

#include "vectors.h"

namespace {

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

}  // namespace

EXPORT(mix_forward, Mixture, mixture_forward<T>(settings))
EXPORT(mix_sums, Mixture, mixture_sums<T>(settings))
EXPORT(mix_backward, Mixture, mixture_backward<T>(settings))
