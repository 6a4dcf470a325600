// Vectors of numbers, and what every kernel shares. PyTorch calls the kernels through ctypes (see library.py); they
// include no header of its, so that they compile in seconds and fit every version.
//
// Images are channels-last: the channels are the innermost axis, and all vector arithmetic runs along it. A "plane" is
// one sample of one group: (H, W, C), contiguous. Samples are spread over threads. Sums over samples are added up per
// thread in the order of the samples, then in the order of the threads: the same number of threads gives the same bits.

#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

// Exports a kernel as NAME(settings, is_double); ctypes fills the settings in. T is double or float in the call.
#define EXPORT(NAME, SETTINGS, CALL)                                \
  extern "C" void NAME(const void* given, int64_t is_double) {      \
    const auto& settings = *static_cast<const SETTINGS*>(given);    \
    const auto run = [&]<typename T>(T) { CALL; };                  \
    is_double ? run(0.0) : run(0.0f);                               \
  }

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

// Comparing vectors gives whole numbers of their elements' size. The place of a maximum is kept as such a number.
template <typename T>
using Whole = std::conditional_t<sizeof(T) == 8, int64_t, std::int32_t>;

}  // namespace
