// Small matrix products whose right-hand side lies in the first-level cache.
//
//     C[m][n] = sum_k A[m * a_m + k * a_k] * B[k * ldb + n]          (Epilogue decides what becomes of C)
//
// A is read by broadcast with free strides, so that one routine serves the three products of a layer on a tile of
// points (points along n, one lane each): forward (A = W), backward to the input (A = W transposed by strides) and
// backward to the weights (A = gradient of the output, B = activations transposed to point-major).
#pragma once

#include "simd.h"

namespace quicksurf {
namespace QS_ISA {

enum class Epilogue { store, accumulate, relu };

// An MR x (NV vectors) block of C in registers: 6 x 4 of the 32 vector registers of AVX-512, 6 x 2 of 16 otherwise.
constexpr int GEMM_MR = 6;
constexpr int GEMM_NV = QS_VECTOR_BYTES == 64 ? 4 : 2;

template <class T, int MR, int NV, Epilogue E>
inline void gemm_block(ptrdiff_t k, const T* a, ptrdiff_t a_m, ptrdiff_t a_k, const T* b, ptrdiff_t ldb, T* c,
                       ptrdiff_t ldc) {
    constexpr int L = LANES<T>;
    Vec<T> sum[MR][NV];
#pragma GCC unroll 6
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) sum[i][j] = E == Epilogue::accumulate ? load(c + i * ldc + j * L) : Vec<T>{};
    for (ptrdiff_t p = 0; p < k; ++p) {
        Vec<T> row[NV];
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) row[j] = load(b + p * ldb + j * L);
#pragma GCC unroll 6
        for (int i = 0; i < MR; ++i) {
            const T x = a[i * a_m + p * a_k];
#pragma GCC unroll 4
            for (int j = 0; j < NV; ++j) sum[i][j] += x * row[j];
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j)
            store(c + i * ldc + j * L, E == Epilogue::relu ? vmax<T>(sum[i][j], Vec<T>{}) : sum[i][j]);
}

template <class T, int NV, Epilogue E>
inline void gemm_columns(ptrdiff_t m, ptrdiff_t k, const T* a, ptrdiff_t a_m, ptrdiff_t a_k, const T* b, ptrdiff_t ldb,
                         T* c, ptrdiff_t ldc) {
    ptrdiff_t i = 0;
    for (; i + GEMM_MR <= m && m - i != 8; i += GEMM_MR)  // 8 left: 4 + 4 rather than 6 + 1 + 1
        gemm_block<T, GEMM_MR, NV, E>(k, a + i * a_m, a_m, a_k, b, ldb, c + i * ldc, ldc);
    for (; i + 4 <= m; i += 4) gemm_block<T, 4, NV, E>(k, a + i * a_m, a_m, a_k, b, ldb, c + i * ldc, ldc);
    for (; i < m; ++i) gemm_block<T, 1, NV, E>(k, a + i * a_m, a_m, a_k, b, ldb, c + i * ldc, ldc);
}

// n is a multiple of LANES<T>; pointers need no alignment beyond T's.
template <class T, Epilogue E>
void gemm(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const T* a, ptrdiff_t a_m, ptrdiff_t a_k, const T* b, ptrdiff_t ldb,
          T* c, ptrdiff_t ldc) {
    constexpr int L = LANES<T>;
    ptrdiff_t j = 0;
    for (; j + GEMM_NV * L <= n; j += GEMM_NV * L)
        gemm_columns<T, GEMM_NV, E>(m, k, a, a_m, a_k, b + j, ldb, c + j, ldc);
    for (; j < n; j += L) gemm_columns<T, 1, E>(m, k, a, a_m, a_k, b + j, ldb, c + j, ldc);
}

}  // namespace QS_ISA
}  // namespace quicksurf
