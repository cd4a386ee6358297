// Vectors of 64 bytes, whatever the registers are: the compiler splits them where those are shorter.
#pragma once

#include <cstdint>
#include <vector>

#include "exponential.h"

namespace headstart::cpu {

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(64)));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
constexpr int kLanes = 64 / sizeof(T);

// Vectors need their alignment from the heap too.
template <class T>
using Vectors = std::vector<Vector<T>>;

// Sums that a loop keeps in registers: half of what the instruction set has.
#if defined(__AVX512F__)
constexpr int kSums = 8;
#elif defined(__AVX2__)
constexpr int kSums = 4;
#else
constexpr int kSums = 2;
#endif

// Static: each instruction set must keep the copy compiled for it.

template <class T, class Function>
static inline Vector<T> map_lanes(Vector<T> x, const Function& function) {
  alignas(64) T lanes[kLanes<T>];
  std::memcpy(lanes, &x, sizeof lanes);
  for (T& lane : lanes) lane = function(lane);
  std::memcpy(&x, lanes, sizeof lanes);
  return x;
}

// sum_d rows_rd x_d, `kSums` rows at a time (of a triangle: d <= r, zeros behind); `take(r, sum)` gets each.
template <class T, class Take>
static inline void products(const T* rows, std::int64_t stride, std::int64_t count, const Vector<T>* x,
                            std::int64_t columns, bool triangular, const Take& take) {
  std::int64_t r = 0;
  for (; r + kSums <= count; r += kSums) {
    Vector<T> sum[kSums] = {};
    const T* row = rows + r * stride;
    const std::int64_t end = triangular ? r + kSums : columns;
    for (std::int64_t d = 0; d < end; ++d) {
#pragma GCC unroll 8
      for (int i = 0; i < kSums; ++i) sum[i] += row[i * stride + d] * x[d];
    }
#pragma GCC unroll 8
    for (int i = 0; i < kSums; ++i) take(r + i, sum[i]);
  }
  for (; r < count; ++r) {
    Vector<T> sum{};
    for (std::int64_t d = 0; d < (triangular ? r + 1 : columns); ++d) sum += rows[r * stride + d] * x[d];
    take(r, sum);
  }
}

// y_d += sum_r rows_rd factor_r, `kSums` rows at a time.
template <class T>
static inline void add_rows(const T* rows, std::int64_t columns, std::int64_t count, const Vector<T>* factor,
                            Vector<T>* y) {
  std::int64_t r = 0;
  for (; r + kSums <= count; r += kSums) {
    const T* row = rows + r * columns;
    for (std::int64_t d = 0; d < columns; ++d) {
      Vector<T> sum = y[d];
#pragma GCC unroll 8
      for (int i = 0; i < kSums; ++i) sum += row[i * columns + d] * factor[r + i];
      y[d] = sum;
    }
  }
  for (; r < count; ++r)
    for (std::int64_t d = 0; d < columns; ++d) y[d] += rows[r * columns + d] * factor[r];
}

}  // namespace headstart::cpu
