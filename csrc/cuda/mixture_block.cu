// Posterior of samples of any size, without axes. A block takes two samples, so that each value of a mean read from
// memory serves both: distances to four components at a time, log-sum-exp over all of them, then the posterior mean.
#include "../math/component.h"
#include "../math/log_sum_exp.h"
#include "launch.h"
#include "mixture.h"
#include "warp.h"

namespace headstart::cuda {
namespace {

constexpr int kBlockSamples = 2, kComponents = 4, kSums = kBlockSamples * kComponents;

// This thread's part of the distances of `kBlockSamples` samples to `kComponents` components; indices are kept in range
// by the caller, so that every thread does the same work.
template <class T>
__device__ __forceinline__ void add_distances(T (&sum)[kSums], const TypedMixture<T>& p,
                                              const std::int64_t (&row)[kBlockSamples],
                                              const std::int64_t (&component)[kComponents]) {
  const std::int64_t variance_stride = p.variance_columns == 1 ? 0 : 1;
  for (std::int64_t d = threadIdx.x; d < p.columns; d += kThreads) {
    T x[kBlockSamples];
#pragma unroll
    for (int s = 0; s < kBlockSamples; ++s) x[s] = p.x[row[s] * p.columns + d];
#pragma unroll
    for (int c = 0; c < kComponents; ++c) {
      const T mean = p.mean[component[c] * p.columns + d];
      const T precision = p.precision[component[c] * p.variance_columns + d * variance_stride];
#pragma unroll
      for (int s = 0; s < kBlockSamples; ++s)
        sum[s * kComponents + c] = add_distance(sum[s * kComponents + c], x[s] - mean, precision);
    }
  }
  for (std::int64_t r = threadIdx.x; r < p.rank; r += kThreads) {
#pragma unroll
    for (int c = 0; c < kComponents; ++c) {
      const T drop = p.drop[component[c] * p.rank + r];
#pragma unroll
      for (int s = 0; s < kBlockSamples; ++s) {
        const T y = p.projection[(row[s] * p.components + component[c]) * p.rank + r];
        sum[s * kComponents + c] = add_drop(sum[s * kComponents + c], y, drop);
      }
    }
  }
}

// Writes log weight_k + log p_k(x) of every component where its responsibility will stand.
template <class T>
__device__ void write_joint(const TypedMixture<T>& p, const std::int64_t (&row)[kBlockSamples], int samples) {
  __shared__ T of_warp[kThreads / 32][kSums];
  for (std::int64_t first = 0; first < p.components; first += kComponents) {
    std::int64_t component[kComponents];
#pragma unroll
    for (int c = 0; c < kComponents; ++c) component[c] = first + c < p.components ? first + c : p.components - 1;
    T sum[kSums] = {};
    add_distances(sum, p, row, component);
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
      const T constant = p.log_constant[sample * p.log_constant_stride + k];
      p.responsibility[sample * p.components + k] = fma_rn(T(-0.5), total, constant);
    }
    __syncthreads();
  }
}

// One warp, one sample: log p(x) and the responsibilities in place of what write_joint left.
template <class T>
__device__ void normalize(const TypedMixture<T>& p, std::int64_t row) {
  T* joint = p.responsibility + row * p.components;
  const int lane = threadIdx.x % 32;
  LogSumExp<T> sum;
  for (std::int64_t k = lane; k < p.components; k += 32) sum.largest = joint[k] > sum.largest ? joint[k] : sum.largest;
  sum.largest = warp_largest(sum.largest);
  const T origin = origin_of(sum.largest);
  for (std::int64_t k = lane; k < p.components; k += 32) sum.total += std::exp(joint[k] - origin);
  sum.total = warp_sum(sum.total);
  const T log_prob = logarithm(sum);  // ahead of the loop: behind it, it costs 12 registers
  for (std::int64_t k = lane; k < p.components; k += 32) joint[k] = share(sum, joint[k]);
  if (lane == 0) p.log_prob[row] = log_prob;
}

template <class T>
__device__ void denoise(const TypedMixture<T>& p, const std::int64_t (&row)[kBlockSamples], int samples) {
  const std::int64_t variance_stride = p.variance_columns == 1 ? 0 : 1;
  for (std::int64_t d = threadIdx.x; d < p.columns; d += kThreads) {
    T x[kBlockSamples], sum[kBlockSamples] = {};
#pragma unroll
    for (int s = 0; s < kBlockSamples; ++s) x[s] = p.x[row[s] * p.columns + d];
    for (std::int64_t k = 0; k < p.components; ++k) {
      T weight[kBlockSamples];
      bool any = false;
#pragma unroll
      for (int s = 0; s < kBlockSamples; ++s) {
        weight[s] = p.responsibility[row[s] * p.components + k];
        any = any || weight[s] != T(0);
      }
      if (!any) continue;  // the same in every thread: most components of a well separated mixture are never read
      const T mean = p.mean[k * p.columns + d];
      const T keep = p.keep[k * p.variance_columns + d * variance_stride];
#pragma unroll
      for (int s = 0; s < kBlockSamples; ++s)
        sum[s] = fma_rn(weight[s], conditional_mean(mean, keep, x[s] - mean), sum[s]);
    }
#pragma unroll
    for (int s = 0; s < kBlockSamples; ++s)
      if (s < samples) p.denoised[row[s] * p.columns + d] = sum[s];
  }
}

template <class T>
__device__ void write_coefficient(const TypedMixture<T>& p, std::int64_t row) {
  const std::int64_t count = p.components * p.rank, first = row * count;
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) {
    const T weight = p.responsibility[row * p.components + i / p.rank];
    p.coefficient[first + i] = weight * p.gain[i] * p.projection[first + i];
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) mixture_block_kernel(const TypedMixture<T> p) {
  for (std::int64_t first = std::int64_t(blockIdx.x) * kBlockSamples; first < p.rows;
       first += std::int64_t(gridDim.x) * kBlockSamples) {
    const int samples = p.rows - first < kBlockSamples ? int(p.rows - first) : kBlockSamples;
    std::int64_t row[kBlockSamples];
#pragma unroll
    for (int s = 0; s < kBlockSamples; ++s) row[s] = s < samples ? first + s : first;
    write_joint(p, row, samples);
    const int warp = threadIdx.x / 32;
    if (warp < samples) normalize(p, first + warp);
    __syncthreads();
    if (p.denoised != nullptr) denoise(p, row, samples);
    for (int s = 0; p.coefficient != nullptr && s < samples; ++s) write_coefficient(p, first + s);
  }
}

}  // namespace

const char* mixture_block(const MixtureParams& params, Queue queue) {
  const std::int64_t blocks = ceil_divide(params.rows, kBlockSamples);
  return params.type == Type::f64 ? launch(mixture_block_kernel<double>, blocks, kThreads, queue, typed<double>(params))
                                  : launch(mixture_block_kernel<float>, blocks, kThreads, queue, typed<float>(params));
}

}  // namespace headstart::cuda
