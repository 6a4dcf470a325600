#pragma once
#include "vectors.h"

namespace {

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

}  // namespace
