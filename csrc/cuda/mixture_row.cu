// Posterior of samples of any size, without axes. A block takes two samples, so that each value of a mean read from
// memory serves both: distances to four components at a time, log-sum-exp over all of them, then the posterior mean.
#include <cmath>

#include "../math/component.h"
#include "launch.h"
#include "mixture.h"
#include "warp.h"

namespace headstart::cuda {
namespace {

constexpr int kSamples = 2, kComponents = 4, kSums = kSamples * kComponents;

template <class T>
__device__ __forceinline__ T entry(const void* table, std::int64_t at) {
  return static_cast<const T*>(table)[at];
}

// This thread's part of the distances of `kSamples` samples to `kComponents` components; indices are kept in range by
// the caller, so that every thread does the same work.
template <class T>
__device__ __forceinline__ void add_distances(T (&sum)[kSums], const MixtureParams& p,
                                              const std::int64_t (&row)[kSamples],
                                              const std::int64_t (&component)[kComponents]) {
  const std::int64_t variance_stride = p.variance_columns == 1 ? 0 : 1;
  for (std::int64_t d = threadIdx.x; d < p.columns; d += kThreads) {
    T x[kSamples];
#pragma unroll
    for (int s = 0; s < kSamples; ++s) x[s] = entry<T>(p.x, row[s] * p.columns + d);
#pragma unroll
    for (int c = 0; c < kComponents; ++c) {
      const T mean = entry<T>(p.mean, component[c] * p.columns + d);
      const T precision = entry<T>(p.precision, component[c] * p.variance_columns + d * variance_stride);
#pragma unroll
      for (int s = 0; s < kSamples; ++s)
        sum[s * kComponents + c] = add_distance(sum[s * kComponents + c], x[s] - mean, precision);
    }
  }
  for (std::int64_t r = threadIdx.x; r < p.rank; r += kThreads) {
#pragma unroll
    for (int c = 0; c < kComponents; ++c) {
      const T drop = entry<T>(p.drop, component[c] * p.rank + r);
#pragma unroll
      for (int s = 0; s < kSamples; ++s) {
        const T y = entry<T>(p.projection, (row[s] * p.components + component[c]) * p.rank + r);
        sum[s * kComponents + c] = add_drop(sum[s * kComponents + c], y, drop);
      }
    }
  }
}

// Writes log weight_k + log p_k(x) of every component where its responsibility will stand.
template <class T>
__device__ void write_joint(const MixtureParams& p, const std::int64_t (&row)[kSamples], int samples) {
  __shared__ T of_warp[kThreads / 32][kSums];
  for (std::int64_t first = 0; first < p.components; first += kComponents) {
    std::int64_t component[kComponents];
#pragma unroll
    for (int c = 0; c < kComponents; ++c) component[c] = first + c < p.components ? first + c : p.components - 1;
    T sum[kSums] = {};
    add_distances<T>(sum, p, row, component);
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      const T total = warp_sum(sum[i]);
      if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32][i] = total;
    }
    __syncthreads();
    const int s = threadIdx.x / kComponents;
    const std::int64_t k = first + threadIdx.x % kComponents;
    if (s < samples && k < p.components) {
      T total = T(0);
      for (int warp = 0; warp < kThreads / 32; ++warp) total += of_warp[warp][threadIdx.x];
      const std::int64_t sample = row[0] + s;
      const T constant = entry<T>(p.log_constant, sample * p.log_constant_stride + k);
      static_cast<T*>(p.responsibility)[sample * p.components + k] = fma_rn(T(-0.5), total, constant);
    }
    __syncthreads();
  }
}

// One warp, one sample: log p(x) and the responsibilities in place of what write_joint left.
template <class T>
__device__ void normalize(const MixtureParams& p, std::int64_t row) {
  T* joint = static_cast<T*>(p.responsibility) + row * p.components;
  const int lane = threadIdx.x % 32;
  T largest = -INFINITY, total = T(0);
  for (std::int64_t k = lane; k < p.components; k += 32) largest = joint[k] > largest ? joint[k] : largest;
  largest = warp_largest(largest);
  if (largest == -INFINITY) largest = T(0);  // no component has any weight
  for (std::int64_t k = lane; k < p.components; k += 32) total += std::exp(joint[k] - largest);
  total = warp_sum(total);
  const T log_prob = largest + std::log(total);
  for (std::int64_t k = lane; k < p.components; k += 32)
    joint[k] = total == T(0) ? T(0) : std::exp(joint[k] - largest) / total;
  if (lane == 0) static_cast<T*>(p.log_prob)[row] = log_prob;
}

template <class T>
__device__ void denoise(const MixtureParams& p, const std::int64_t (&row)[kSamples], int samples) {
  const std::int64_t variance_stride = p.variance_columns == 1 ? 0 : 1;
  for (std::int64_t d = threadIdx.x; d < p.columns; d += kThreads) {
    T x[kSamples], sum[kSamples] = {};
#pragma unroll
    for (int s = 0; s < kSamples; ++s) x[s] = entry<T>(p.x, row[s] * p.columns + d);
    for (std::int64_t k = 0; k < p.components; ++k) {
      T weight[kSamples];
      bool any = false;
#pragma unroll
      for (int s = 0; s < kSamples; ++s) {
        weight[s] = entry<T>(p.responsibility, row[s] * p.components + k);
        any = any || weight[s] != T(0);
      }
      if (!any) continue;  // the same in every thread: most components of a well separated mixture are never read
      const T mean = entry<T>(p.mean, k * p.columns + d);
      const T keep = entry<T>(p.keep, k * p.variance_columns + d * variance_stride);
#pragma unroll
      for (int s = 0; s < kSamples; ++s) sum[s] = fma_rn(weight[s], conditional_mean(mean, keep, x[s] - mean), sum[s]);
    }
#pragma unroll
    for (int s = 0; s < kSamples; ++s)
      if (s < samples) static_cast<T*>(p.denoised)[row[s] * p.columns + d] = sum[s];
  }
}

template <class T>
__device__ void write_coefficient(const MixtureParams& p, std::int64_t row) {
  const std::int64_t count = p.components * p.rank, first = row * count;
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) {
    const T weight = entry<T>(p.responsibility, row * p.components + i / p.rank);
    static_cast<T*>(p.coefficient)[first + i] = weight * entry<T>(p.gain, i) * entry<T>(p.projection, first + i);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) mixture_rows(const MixtureParams p) {
  for (std::int64_t first = std::int64_t(blockIdx.x) * kSamples; first < p.rows;
       first += std::int64_t(gridDim.x) * kSamples) {
    const int samples = p.rows - first < kSamples ? int(p.rows - first) : kSamples;
    std::int64_t row[kSamples];
#pragma unroll
    for (int s = 0; s < kSamples; ++s) row[s] = s < samples ? first + s : first;
    write_joint<T>(p, row, samples);
    const int warp = threadIdx.x / 32;
    if (warp < samples) normalize<T>(p, first + warp);
    __syncthreads();
    if (p.denoised != nullptr) denoise<T>(p, row, samples);
    for (int s = 0; p.coefficient != nullptr && s < samples; ++s) write_coefficient<T>(p, first + s);
  }
}

}  // namespace

const char* mixture_large(const MixtureParams& params, Queue queue) {
  const std::int64_t blocks = ceil_divide(params.rows, kSamples);
  return params.type == Type::f64 ? launch(mixture_rows<double>, blocks, kThreads, queue, params)
                                  : launch(mixture_rows<float>, blocks, kThreads, queue, params);
}

}  // namespace headstart::cuda
