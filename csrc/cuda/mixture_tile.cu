// Posterior of samples of at most 128 elements: the running sums, and the kernel over tiles of samples.
#include <cmath>

#include "launch.h"
#include "mixture.h"
#include "mixture_tile.h"

namespace headstart::cuda {
namespace {

// Takes component k into the running sums, and leaves its weight relative to the largest so far. Lane s does it for
// sample s, so that exponentials are taken once.
template <class T, int parts>
__device__ __forceinline__ void weigh(State<T, parts>& state, const MixtureParams& p, std::int64_t k) {
  constexpr int samples = kWarpSamples<T>;
  const int lane = threadIdx.x % 32, sample = lane % samples;
  T distance = T(0);
#pragma unroll
  for (int s = 0; s < samples; ++s) {
    const T sum = warp_sum(state.partial[s]);
    distance = sample == s ? sum : distance;
  }
  const std::int64_t row = state.row(sample);
  const T constant = static_cast<const T*>(p.log_constant)[row * p.log_constant_stride + k];
  const T joint = fma_rn(T(-0.5), distance, constant);
  if (lane < samples && state.inside(sample)) static_cast<T*>(p.responsibility)[row * p.components + k] = joint;
  const T largest = joint > state.largest ? joint : state.largest;
  const T origin = largest == -INFINITY ? T(0) : largest;  // a component of weight zero, before any other
  const T shrink = std::exp(state.largest - origin), weight = std::exp(joint - origin);
  state.total = fma_rn(state.total, shrink, weight);
  state.largest = largest;
#pragma unroll
  for (int s = 0; s < samples; ++s) {
    const T of_sample = __shfl_sync(0xFFFFFFFFu, shrink, s);
    state.weight[s] = __shfl_sync(0xFFFFFFFFu, weight, s);
#pragma unroll
    for (int part = 0; part < parts; ++part) state.denoised[s][part] *= of_sample;
  }
}

// Adds weight E[x0 | x, k] to the posterior mean: a lane takes one element of each part.
template <class T, int parts>
__device__ __forceinline__ void denoise(Tile<T, parts>& tile, State<T, parts>& state, const MixtureParams& p,
                                        std::int64_t k) {
  constexpr int samples = kWarpSamples<T>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int r = lane; r < p.rank; r += 32) {
    const T gain = static_cast<const T*>(p.gain)[k * p.rank + r];
#pragma unroll
    for (int s = 0; s < samples; ++s) tile.along[warp][s][r] *= gain * state.weight[s];
  }
#pragma unroll
  for (int part = 0; part < parts; ++part) {
    const int d = 32 * part + lane;
    const bool inside = d < p.columns;
    const T mean = inside ? static_cast<const T*>(p.mean)[k * p.columns + d] : T(0);
    const T* of_component = static_cast<const T*>(p.keep) + k * p.variance_columns;
    const T keep = inside ? of_component[p.variance_columns == 1 ? 0 : d] : T(0);
#pragma unroll
    for (int s = 0; s < samples; ++s) {
      const T conditional = conditional_mean(mean, keep, tile.difference[warp][s][d]);
      state.denoised[s][part] = fma_rn(state.weight[s], conditional, state.denoised[s][part]);
    }
    if (32 * part >= p.columns) continue;
    for (int first = 0; first < p.rank; first += 32) {
      stage(tile, p, k, first, 32 * part);
      const int height = p.rank - first < 32 ? int(p.rank - first) : 32;
#pragma unroll 1                             // a step has sums enough in flight; more only take registers
      for (int r = 0; r < height; r += 4) {  // axes beyond the end are zero, and so is their y
        T axis[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) axis[e] = tile.axes[r + e][lane];
#pragma unroll
        for (int s = 0; s < samples; ++s) {
          const Four<T> along = *reinterpret_cast<const Four<T>*>(&tile.along[warp][s][first + r]);
#pragma unroll
          for (int e = 0; e < 4; ++e) state.denoised[s][part] = fma_rn(along.v[e], axis[e], state.denoised[s][part]);
        }
      }
    }
  }
}

template <class T, int parts>
__device__ __forceinline__ void finish(const State<T, parts>& state, const MixtureParams& p) {
  constexpr int samples = kWarpSamples<T>;
  const int lane = threadIdx.x % 32;
  const T own_log_prob = (state.largest == -INFINITY ? T(0) : state.largest) + std::log(state.total);
  if (lane < samples && state.inside(lane)) static_cast<T*>(p.log_prob)[state.row(lane)] = own_log_prob;
#pragma unroll
  for (int s = 0; s < samples; ++s) {
    const T largest = __shfl_sync(0xFFFFFFFFu, state.largest, s), total = __shfl_sync(0xFFFFFFFFu, state.total, s);
    if (!state.inside(s)) continue;
    T* responsibility = static_cast<T*>(p.responsibility) + state.row(s) * p.components;
    const bool none = total == T(0);  // no component has any weight
    for (std::int64_t k = lane; k < p.components; k += 32)
      responsibility[k] = none ? T(0) : std::exp(responsibility[k] - largest) / total;
    if (p.denoised == nullptr) continue;
    const T inverse = none ? T(0) : T(1) / total;
#pragma unroll
    for (int part = 0; part < parts; ++part) {
      const int d = 32 * part + lane;
      if (d < p.columns) static_cast<T*>(p.denoised)[state.row(s) * p.columns + d] = state.denoised[s][part] * inverse;
    }
  }
}

template <class T, int parts>
__global__ void __launch_bounds__(32 * kTileWarps, 1) mixture_tiles(const MixtureParams p) {
  __shared__ Tile<T, parts> tile;
  constexpr int samples = kWarpSamples<T>;
  for (std::int64_t first = std::int64_t(blockIdx.x) * kTileWarps * samples; first < p.rows;
       first += std::int64_t(gridDim.x) * kTileWarps * samples) {
    State<T, parts> state{};
    state.first = first + threadIdx.x / 32 * samples;
    state.rows = p.rows;
    state.largest = -INFINITY;
    for (std::int64_t k = 0; k < p.components; ++k) {
      __syncwarp();  // the warp has used the differences of the component before
      measure(tile, state, p, k);
      project(tile, state, p, k);
      weigh(state, p, k);
      if (p.denoised != nullptr) denoise(tile, state, p, k);
    }
    __syncwarp();  // lanes read what others wrote of the responsibilities
    finish(state, p);
  }
}

template <class T>
const char* run(const MixtureParams& p, Queue queue) {
  constexpr int threads = 32 * kTileWarps, samples = kTileWarps * kWarpSamples<T>;
  const std::int64_t tiles = ceil_divide(p.rows, samples);
  if (p.columns <= 32) return launch(mixture_tiles<T, 1>, tiles, threads, queue, p);
  if (p.columns <= 64) return launch(mixture_tiles<T, 2>, tiles, threads, queue, p);
  return launch(mixture_tiles<T, 4>, tiles, threads, queue, p);
}

}  // namespace

const char* mixture_small(const MixtureParams& params, Queue queue) {
  return params.type == Type::f64 ? run<double>(params, queue) : run<float>(params, queue);
}

}  // namespace headstart::cuda
