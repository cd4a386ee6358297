// Posterior of samples of at most 16 elements: a thread owns a sample, and the block goes through the components
// together, their parameters in shared memory, in one pass that keeps a running log-sum-exp and posterior mean.
#include "../math/component.h"
#include "../math/log_sum_exp.h"
#include "group.h"
#include "launch.h"
#include "mixture.h"

namespace headstart::cuda {
namespace {

constexpr int kThreadSamples = 128;  // threads of a block
constexpr int kShared = 32 * 1024;   // bytes of parameters at a time

template <class T>
constexpr int kFours = kShared / sizeof(Four<T>);

// One component in shared memory, in groups of four, zero beyond its size: constant; mean; precision; keep; then for
// each axis: drop and gain; the axis.
template <int quads>
__device__ __forceinline__ int record_size(std::int64_t rank) {
  return 1 + 3 * quads + int(rank) * (1 + quads);
}

template <class T, int quads>
__device__ T parameter(const TypedMixture<T>& p, std::int64_t k, int entry) {
  const int group = entry / 4, part = entry % 4;
  if (group == 0) return part == 0 && p.log_constant_stride == 0 ? p.log_constant[k] : T(0);
  const int table = (group - 1) / quads, d = (group - 1) % quads * 4 + part;
  if (table == 0) return d < p.columns ? p.mean[k * p.columns + d] : T(0);
  if (table <= 2) {
    const T* of_component = (table == 1 ? p.precision : p.keep) + k * p.variance_columns;
    return d < p.columns ? of_component[p.variance_columns == 1 ? 0 : d] : T(0);
  }
  const int behind = group - 1 - 3 * quads, column = (behind % (1 + quads) - 1) * 4 + part;
  const std::int64_t axis = k * p.rank + behind / (1 + quads);
  if (column >= 0) return column < p.columns ? p.axes[axis * p.columns + column] : T(0);
  return part == 0 ? p.drop[axis] : part == 1 ? p.gain[axis] : T(0);
}

// A sample and its running sums.
template <class T, int quads>
struct ThreadState {
  Four<T> x[quads], denoised[quads];
  LogSumExp<T> sum;
};

// Takes one component into the sums; returns log weight + log density.
template <class T, int quads>
__device__ __forceinline__ T add(ThreadState<T, quads>& state, const Four<T>* record, T constant, int rank) {
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
  const Added<T> added = add_exponent(state.sum, joint);
#pragma unroll
  for (int q = 0; q < quads; ++q) {
    const Four<T> mean = record[1 + q], keep = record[1 + 2 * quads + q];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const T conditional = conditional_mean(mean.v[e], keep.v[e], difference[q].v[e]);
      state.denoised[q].v[e] = fma_rn(added.weight, conditional, state.denoised[q].v[e] * added.shrink);
    }
  }
#pragma unroll
  for (int r = 0; r < 4 * quads; ++r) {
    if (r >= rank) continue;
    const T along = added.weight * (axes[r * (1 + quads)].v[1] * y[r]);
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
__device__ __forceinline__ void finish(const ThreadState<T, quads>& state, const TypedMixture<T>& p, std::int64_t row) {
  p.log_prob[row] = logarithm(state.sum);
  T* responsibility = p.responsibility + row * p.components;
  for (std::int64_t k = 0; k < p.components; ++k) responsibility[k] = share(state.sum, responsibility[k]);
  if (p.denoised == nullptr) return;
  const T inverse = state.sum.total == T(0) ? T(0) : T(1) / state.sum.total;  // 0: no component has any weight
#pragma unroll
  for (int d = 0; d < 4 * quads; ++d)
    if (d < p.columns) p.denoised[row * p.columns + d] = state.denoised[d / 4].v[d % 4] * inverse;
}

template <class T, int quads>
__global__ void __launch_bounds__(kThreadSamples) mixture_thread_kernel(const TypedMixture<T> p) {
  __shared__ Four<T> shared[kFours<T>];
  const int size = record_size<quads>(p.rank), run = kFours<T> / size;
  for (std::int64_t first = std::int64_t(blockIdx.x) * kThreadSamples; first < p.rows;
       first += std::int64_t(gridDim.x) * kThreadSamples) {
    const std::int64_t row = first + threadIdx.x;
    const bool inside = row < p.rows;
    ThreadState<T, quads> state{};
#pragma unroll
    for (int d = 0; d < 4 * quads; ++d)
      if (inside && d < p.columns) state.x[d / 4].v[d % 4] = p.x[row * p.columns + d];
    for (std::int64_t k = 0; k < p.components; k += run) {
      const int count = p.components - k < run ? int(p.components - k) : run;
      __syncthreads();  // the run before has been used
      for (int i = threadIdx.x; i < 4 * size * count; i += kThreadSamples)
        shared[i / 4].v[i % 4] = parameter<T, quads>(p, k + i / (4 * size), i % (4 * size));
      __syncthreads();
      for (int c = 0; inside && c < count; ++c) {
        const Four<T>* record = shared + c * size;
        const std::int64_t own = row * p.log_constant_stride + k + c;
        const T constant = p.log_constant_stride == 0 ? record[0].v[0] : p.log_constant[own];
        p.responsibility[row * p.components + k + c] = add(state, record, constant, int(p.rank));
      }
    }
    if (inside) finish(state, p, row);
  }
}

template <class T>
const char* run(const TypedMixture<T>& p, Queue queue) {
  const std::int64_t blocks = ceil_divide(p.rows, kThreadSamples);
  if (p.columns <= 4) return launch(mixture_thread_kernel<T, 1>, blocks, kThreadSamples, queue, p);
  if (p.columns <= 8) return launch(mixture_thread_kernel<T, 2>, blocks, kThreadSamples, queue, p);
  return launch(mixture_thread_kernel<T, 4>, blocks, kThreadSamples, queue, p);
}

}  // namespace

const char* mixture_thread(const MixtureParams& params, Queue queue) {
  return params.type == Type::f64 ? run(typed<double>(params), queue) : run(typed<float>(params), queue);
}

}  // namespace headstart::cuda
