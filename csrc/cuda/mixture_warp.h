// Mixture posterior of samples of at most 128 elements, everything fused: one pass over the components keeps a running
// log-sum-exp and posterior mean. A warp owns its samples; the block shares the axes, 32 x 32 of them at a time.
#pragma once

#include "../math/component.h"
#include "../math/log_sum_exp.h"
#include "../typed.h"
#include "group.h"
#include "warp.h"

namespace headstart::cuda {

constexpr int kWarps = 4;

template <class T>
constexpr int kWarpSamples = sizeof(T) == 4 ? 8 : 4;

// Rows are padded by 16 bytes or more: lanes that read down a column then use different banks.
template <class T, int parts>  // parts: of 32 columns
struct alignas(16) WarpShared {
  T axes[32][36];
  T difference[kWarps][kWarpSamples<T>][32 * parts + 4];
  T along[kWarps][kWarpSamples<T>][32 * parts + 4];  // y, then y gain g
};

// What a lane holds: of every sample of the warp its own column of each part, and of one sample, `lane % samples`, the
// running log-sum-exp.
template <class T, int parts>
struct WarpState {
  T denoised[kWarpSamples<T>][parts], partial[kWarpSamples<T>], weight[kWarpSamples<T>];
  LogSumExp<T> sum;
  std::int64_t first, rows;

  // A sample beyond the end reads the last one and writes nothing.
  __device__ __forceinline__ bool inside(int sample) const { return first + sample < rows; }
  __device__ __forceinline__ std::int64_t row(int sample) const { return inside(sample) ? first + sample : rows - 1; }
};

// Axes first_row .. + 31, elements first_column .. + 31, zero beyond the end.
template <class T, int parts>
__device__ __forceinline__ void stage(WarpShared<T, parts>& shared, const TypedMixture<T>& p, std::int64_t k,
                                      int first_row, int first_column) {
  __syncthreads();  // the previous one has been used, the differences are written
  const int lane = threadIdx.x % 32, column = first_column + lane;
  for (int r = threadIdx.x / 32; r < 32; r += kWarps) {
    const int row = first_row + r;
    const bool inside = row < p.rank && column < p.columns;
    shared.axes[r][lane] = inside ? p.axes[(k * p.rank + row) * p.columns + column] : T(0);
  }
  __syncthreads();
}

template <class T, int parts>
__device__ __forceinline__ void measure(WarpShared<T, parts>& shared, WarpState<T, parts>& state,
                                        const TypedMixture<T>& p, std::int64_t k) {
  constexpr int samples = kWarpSamples<T>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const T* precision = p.precision + k * p.variance_columns;
#pragma unroll
  for (int s = 0; s < samples; ++s) state.partial[s] = T(0);
#pragma unroll
  for (int part = 0; part < parts; ++part) {
    const int d = 32 * part + lane;
    const bool inside = d < p.columns;
    const T mean = inside ? p.mean[k * p.columns + d] : T(0);
    const T scale = inside ? precision[p.variance_columns == 1 ? 0 : d] : T(0);
#pragma unroll
    for (int s = 0; s < samples; ++s) {
      const T difference = inside ? p.x[state.row(s) * p.columns + d] - mean : T(0);
      shared.difference[warp][s][d] = difference;
      state.partial[s] = add_distance(state.partial[s], difference, scale);
    }
  }
}

// y = axes (x - mean): a lane takes one axis.
template <class T, int parts>
__device__ __forceinline__ void project(WarpShared<T, parts>& shared, WarpState<T, parts>& state,
                                        const TypedMixture<T>& p, std::int64_t k) {
  constexpr int samples = kWarpSamples<T>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int first = 0; first < p.rank; first += 32) {
    T y[samples] = {};
    for (int column = 0; column < p.columns; column += 32) {
      stage(shared, p, k, first, column);
      const int width = p.columns - column < 32 ? int(p.columns - column) : 32;
#pragma unroll 1  // a step has sums enough in flight; more only take registers
      for (int d = 0; d < width; d += 4) {
        const Four<T> axis = *reinterpret_cast<const Four<T>*>(&shared.axes[lane][d]);
#pragma unroll
        for (int s = 0; s < samples; ++s) {
          const Four<T> x = *reinterpret_cast<const Four<T>*>(&shared.difference[warp][s][column + d]);
#pragma unroll
          for (int e = 0; e < 4; ++e) y[s] = fma_rn(axis.v[e], x.v[e], y[s]);
        }
      }
    }
    const int r = first + lane;
    const T drop = r < p.rank ? p.drop[k * p.rank + r] : T(0);
#pragma unroll
    for (int s = 0; s < samples; ++s) {
      shared.along[warp][s][r] = y[s];
      state.partial[s] = add_drop(state.partial[s], y[s], drop);
    }
  }
}

}  // namespace headstart::cuda
