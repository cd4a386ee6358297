// Posterior of samples of at most 128 elements: the running sums, and the kernel.
#include "launch.h"
#include "mixture.h"
#include "mixture_warp.h"

namespace headstart::cuda {
namespace {

// Takes component k into the running sums, and leaves its weight relative to the largest so far. Lane s does it for
// sample s, so that exponentials are taken once.
template <class T, int parts>
__device__ __forceinline__ void weigh(WarpState<T, parts>& state, const TypedMixture<T>& p, std::int64_t k) {
  constexpr int samples = kWarpSamples<T>;
  const int lane = threadIdx.x % 32, sample = lane % samples;
  T distance = T(0);
#pragma unroll
  for (int s = 0; s < samples; ++s) {
    const T sum = warp_sum(state.partial[s]);
    distance = sample == s ? sum : distance;
  }
  const std::int64_t row = state.row(sample);
  const T constant = p.log_constant[row * p.log_constant_stride + k];
  const T joint = fma_rn(T(-0.5), distance, constant);
  if (lane < samples && state.inside(sample)) p.responsibility[row * p.components + k] = joint;
  const Added<T> added = add_exponent(state.sum, joint);
#pragma unroll
  for (int s = 0; s < samples; ++s) {
    const T of_sample = __shfl_sync(0xFFFFFFFFu, added.shrink, s);
    state.weight[s] = __shfl_sync(0xFFFFFFFFu, added.weight, s);
#pragma unroll
    for (int part = 0; part < parts; ++part) state.denoised[s][part] *= of_sample;
  }
}

// Adds weight E[x0 | x, k] to the posterior mean: a lane takes one element of each part.
template <class T, int parts>
__device__ __forceinline__ void denoise(WarpShared<T, parts>& shared, WarpState<T, parts>& state,
                                        const TypedMixture<T>& p, std::int64_t k) {
  constexpr int samples = kWarpSamples<T>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int r = lane; r < p.rank; r += 32) {
    const T gain = p.gain[k * p.rank + r];
#pragma unroll
    for (int s = 0; s < samples; ++s) shared.along[warp][s][r] *= gain * state.weight[s];
  }
#pragma unroll
  for (int part = 0; part < parts; ++part) {
    const int d = 32 * part + lane;
    const bool inside = d < p.columns;
    const T mean = inside ? p.mean[k * p.columns + d] : T(0);
    const T* of_component = p.keep + k * p.variance_columns;
    const T keep = inside ? of_component[p.variance_columns == 1 ? 0 : d] : T(0);
#pragma unroll
    for (int s = 0; s < samples; ++s) {
      const T conditional = conditional_mean(mean, keep, shared.difference[warp][s][d]);
      state.denoised[s][part] = fma_rn(state.weight[s], conditional, state.denoised[s][part]);
    }
    if (32 * part >= p.columns) continue;
    for (int first = 0; first < p.rank; first += 32) {
      stage(shared, p, k, first, 32 * part);
      const int height = p.rank - first < 32 ? int(p.rank - first) : 32;
#pragma unroll 1                             // a step has sums enough in flight; more only take registers
      for (int r = 0; r < height; r += 4) {  // axes beyond the end are zero, and so is their y
        T axis[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) axis[e] = shared.axes[r + e][lane];
#pragma unroll
        for (int s = 0; s < samples; ++s) {
          const Four<T> along = *reinterpret_cast<const Four<T>*>(&shared.along[warp][s][first + r]);
#pragma unroll
          for (int e = 0; e < 4; ++e) state.denoised[s][part] = fma_rn(along.v[e], axis[e], state.denoised[s][part]);
        }
      }
    }
  }
}

template <class T, int parts>
__device__ __forceinline__ void finish(const WarpState<T, parts>& state, const TypedMixture<T>& p) {
  constexpr int samples = kWarpSamples<T>;
  const int lane = threadIdx.x % 32;
  const T own_log_prob = logarithm(state.sum);
  if (lane < samples && state.inside(lane)) p.log_prob[state.row(lane)] = own_log_prob;
#pragma unroll
  for (int s = 0; s < samples; ++s) {
    LogSumExp<T> sum;
    sum.largest = __shfl_sync(0xFFFFFFFFu, state.sum.largest, s);
    sum.total = __shfl_sync(0xFFFFFFFFu, state.sum.total, s);
    if (!state.inside(s)) continue;
    T* responsibility = p.responsibility + state.row(s) * p.components;
    for (std::int64_t k = lane; k < p.components; k += 32) responsibility[k] = share(sum, responsibility[k]);
    if (p.denoised == nullptr) continue;
    const T inverse = sum.total == T(0) ? T(0) : T(1) / sum.total;  // 0: no component has any weight
#pragma unroll
    for (int part = 0; part < parts; ++part) {
      const int d = 32 * part + lane;
      if (d < p.columns) p.denoised[state.row(s) * p.columns + d] = state.denoised[s][part] * inverse;
    }
  }
}

template <class T, int parts>
__global__ void __launch_bounds__(32 * kWarps, 1) mixture_warp_kernel(const TypedMixture<T> p) {
  __shared__ WarpShared<T, parts> shared;
  constexpr int samples = kWarpSamples<T>;
  for (std::int64_t first = std::int64_t(blockIdx.x) * kWarps * samples; first < p.rows;
       first += std::int64_t(gridDim.x) * kWarps * samples) {
    WarpState<T, parts> state{};
    state.first = first + threadIdx.x / 32 * samples;
    state.rows = p.rows;
    for (std::int64_t k = 0; k < p.components; ++k) {
      __syncwarp();  // the warp has used the differences of the component before
      measure(shared, state, p, k);
      project(shared, state, p, k);
      weigh(state, p, k);
      if (p.denoised != nullptr) denoise(shared, state, p, k);
    }
    __syncwarp();  // lanes read what others wrote of the responsibilities
    finish(state, p);
  }
}

template <class T>
const char* run(const TypedMixture<T>& p, Queue queue) {
  constexpr int threads = 32 * kWarps, samples = kWarps * kWarpSamples<T>;
  const std::int64_t blocks = ceil_divide(p.rows, samples);
  static_assert(kFusedColumns == 4 * 32);
  if (p.columns <= 32) return launch(mixture_warp_kernel<T, 1>, blocks, threads, queue, p);
  if (p.columns <= 64) return launch(mixture_warp_kernel<T, 2>, blocks, threads, queue, p);
  return launch(mixture_warp_kernel<T, 4>, blocks, threads, queue, p);
}

}  // namespace

const char* mixture_warp(const MixtureParams& params, Queue queue) {
  return params.type == Type::f64 ? run(typed<double>(params), queue) : run(typed<float>(params), queue);
}

}  // namespace headstart::cuda
