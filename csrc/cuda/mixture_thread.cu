// Posterior of samples of at most 16 elements: a thread owns a sample, and the block goes through the components
// together, their parameters in shared memory, in one pass that keeps a running log-sum-exp and posterior mean ("Online
// normalizer calculation for softmax", Milakov, Gimelshein, 2018, https://arxiv.org/abs/1805.02867).
#include <cmath>

#include "../math/component.h"
#include "group.h"
#include "launch.h"
#include "mixture.h"

namespace headstart::cuda {
namespace {

constexpr int kSamples = 128;       // threads of a block
constexpr int kShared = 32 * 1024;  // bytes of parameters at a time

template <class T>
constexpr int kFours = kShared / sizeof(Four<T>);

// One component in shared memory, in groups of four, zero beyond its size: constant; mean; precision; keep; then for
// each axis: drop and gain; the axis.
template <int quads>
__device__ __forceinline__ int record_size(std::int64_t rank) {
  return 1 + 3 * quads + int(rank) * (1 + quads);
}

template <class T, int quads>
__device__ T parameter(const MixtureParams& p, std::int64_t k, int entry) {
  const int group = entry / 4, part = entry % 4;
  if (group == 0) return part == 0 && p.log_constant_stride == 0 ? static_cast<const T*>(p.log_constant)[k] : T(0);
  const int table = (group - 1) / quads, d = (group - 1) % quads * 4 + part;
  if (table == 0) return d < p.columns ? static_cast<const T*>(p.mean)[k * p.columns + d] : T(0);
  if (table <= 2) {
    const T* of_component = static_cast<const T*>(table == 1 ? p.precision : p.keep) + k * p.variance_columns;
    return d < p.columns ? of_component[p.variance_columns == 1 ? 0 : d] : T(0);
  }
  const int behind = group - 1 - 3 * quads, column = (behind % (1 + quads) - 1) * 4 + part;
  const std::int64_t axis = k * p.rank + behind / (1 + quads);
  if (column >= 0) return column < p.columns ? static_cast<const T*>(p.axes)[axis * p.columns + column] : T(0);
  return part == 0 ? static_cast<const T*>(p.drop)[axis] : part == 1 ? static_cast<const T*>(p.gain)[axis] : T(0);
}

// A sample and its running sums.
template <class T, int quads>
struct State {
  Four<T> x[quads], denoised[quads];
  T largest, total;
};

// Takes one component into the sums; returns log weight + log density.
template <class T, int quads>
__device__ __forceinline__ T add(State<T, quads>& state, const Four<T>* record, T constant, int rank) {
  Four<T> difference[quads];
  T distance = T(0), y[4 * quads];
#pragma unroll
  for (int q = 0; q < quads; ++q) {
    const Four<T> mean = record[1 + q], precision = record[1 + quads + q];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      difference[q].v[e] = state.x[q].v[e] - mean.v[e];
      distance = add_distance(distance, difference[q].v[e], precision.v[e]);
    }
  }
  const Four<T>* axes = record + 1 + 3 * quads;
#pragma unroll
  for (int r = 0; r < 4 * quads; ++r) {
    y[r] = T(0);
    if (r >= rank) continue;
#pragma unroll
    for (int q = 0; q < quads; ++q) {
      const Four<T> axis = axes[r * (1 + quads) + 1 + q];
#pragma unroll
      for (int e = 0; e < 4; ++e) y[r] = fma_rn(axis.v[e], difference[q].v[e], y[r]);
    }
    distance = add_drop(distance, y[r], axes[r * (1 + quads)].v[0]);
  }
  const T joint = fma_rn(T(-0.5), distance, constant);
  const T largest = joint > state.largest ? joint : state.largest;
  const T origin = largest == -INFINITY ? T(0) : largest;  // a component of weight zero, before any other
  const T shrink = std::exp(state.largest - origin), weight = std::exp(joint - origin);
  state.total = fma_rn(state.total, shrink, weight);
  state.largest = largest;
#pragma unroll
  for (int q = 0; q < quads; ++q) {
    const Four<T> mean = record[1 + q], keep = record[1 + 2 * quads + q];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const T conditional = conditional_mean(mean.v[e], keep.v[e], difference[q].v[e]);
      state.denoised[q].v[e] = fma_rn(weight, conditional, state.denoised[q].v[e] * shrink);
    }
  }
#pragma unroll
  for (int r = 0; r < 4 * quads; ++r) {
    if (r >= rank) continue;
    const T along = weight * (axes[r * (1 + quads)].v[1] * y[r]);
#pragma unroll
    for (int q = 0; q < quads; ++q) {
      const Four<T> axis = axes[r * (1 + quads) + 1 + q];
#pragma unroll
      for (int e = 0; e < 4; ++e) state.denoised[q].v[e] = fma_rn(along, axis.v[e], state.denoised[q].v[e]);
    }
  }
  return joint;
}

template <class T, int quads>
__device__ __forceinline__ void finish(const State<T, quads>& state, const MixtureParams& p, std::int64_t row) {
  const bool none = state.total == T(0);  // no component has any weight
  static_cast<T*>(p.log_prob)[row] = (state.largest == -INFINITY ? T(0) : state.largest) + std::log(state.total);
  T* responsibility = static_cast<T*>(p.responsibility) + row * p.components;
  for (std::int64_t k = 0; k < p.components; ++k)
    responsibility[k] = none ? T(0) : std::exp(responsibility[k] - state.largest) / state.total;
  if (p.denoised == nullptr) return;
  const T inverse = none ? T(0) : T(1) / state.total;
#pragma unroll
  for (int d = 0; d < 4 * quads; ++d)
    if (d < p.columns) static_cast<T*>(p.denoised)[row * p.columns + d] = state.denoised[d / 4].v[d % 4] * inverse;
}

template <class T, int quads>
__global__ void __launch_bounds__(kSamples) mixture_threads(const MixtureParams p) {
  __shared__ Four<T> shared[kFours<T>];
  const int size = record_size<quads>(p.rank), run = kFours<T> / size;
  for (std::int64_t first = std::int64_t(blockIdx.x) * kSamples; first < p.rows;
       first += std::int64_t(gridDim.x) * kSamples) {
    const std::int64_t row = first + threadIdx.x;
    const bool inside = row < p.rows;
    State<T, quads> state{};
    state.largest = -INFINITY;
#pragma unroll
    for (int d = 0; d < 4 * quads; ++d)
      if (inside && d < p.columns) state.x[d / 4].v[d % 4] = static_cast<const T*>(p.x)[row * p.columns + d];
    for (std::int64_t k = 0; k < p.components; k += run) {
      const int count = p.components - k < run ? int(p.components - k) : run;
      __syncthreads();  // the run before has been used
      for (int i = threadIdx.x; i < 4 * size * count; i += kSamples)
        shared[i / 4].v[i % 4] = parameter<T, quads>(p, k + i / (4 * size), i % (4 * size));
      __syncthreads();
      for (int c = 0; inside && c < count; ++c) {
        const Four<T>* record = shared + c * size;
        const std::int64_t own = row * p.log_constant_stride + k + c;
        const T constant = p.log_constant_stride == 0 ? record[0].v[0] : static_cast<const T*>(p.log_constant)[own];
        static_cast<T*>(p.responsibility)[row * p.components + k + c] = add(state, record, constant, int(p.rank));
      }
    }
    if (inside) finish(state, p, row);
  }
}

template <class T>
const char* run(const MixtureParams& p, Queue queue) {
  const std::int64_t blocks = ceil_divide(p.rows, kSamples);
  if (p.columns <= 4) return launch(mixture_threads<T, 1>, blocks, kSamples, queue, p);
  if (p.columns <= 8) return launch(mixture_threads<T, 2>, blocks, kSamples, queue, p);
  return launch(mixture_threads<T, 4>, blocks, kSamples, queue, p);
}

}  // namespace

const char* mixture_tiny(const MixtureParams& params, Queue queue) {
  return params.type == Type::f64 ? run<double>(params, queue) : run<float>(params, queue);
}

}  // namespace headstart::cuda
