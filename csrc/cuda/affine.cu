// One thread, one group of four elements: read every input once, one Philox call, write each output once.
#include <cstring>

#include "../kernels.h"
#include "../math/affine.h"
#include "../math/normal.h"
#include "group.h"
#include "launch.h"

namespace headstart::cuda {
namespace {

// The row with its scalars already in the state's type.
template <class T>
struct Row {
  AffineParams p;
  T a, b[4], noise_scale, scale;
  std::int64_t groups;  // of four elements in a row
  bool wide;
};

// Bits of four elements of any type. All inputs are read before the first is converted, so that their latencies
// overlap.
struct Raw {
  std::uint32_t word[8];
};

template <class Word>
__device__ __forceinline__ Raw load_words(const void* y, std::int64_t at, int count, bool wide) {
  const Four<Word> four = load_four(static_cast<const Word*>(y) + at, count, wide);
  Raw raw;
  std::memcpy(raw.word, &four, sizeof four);
  return raw;
}

__device__ __forceinline__ Raw load_raw(const void* y, Type type, std::int64_t at, int count, bool wide) {
  switch (type) {
    case Type::f32:
      return load_words<std::uint32_t>(y, at, count, wide);
    case Type::f64:
      return load_words<std::uint64_t>(y, at, count, wide);
    default:
      return load_words<std::uint16_t>(y, at, count, wide);
  }
}

template <class Input, class T>
__device__ __forceinline__ void add_four(Four<T>& sum, T b, const Raw& raw) {
  Four<Input> y;
  std::memcpy(&y, raw.word, sizeof y);
#pragma unroll
  for (int i = 0; i < 4; ++i) sum.v[i] = add_term(sum.v[i], b, y.v[i]);
}

template <class T>
__device__ __forceinline__ void add_raw(Four<T>& sum, T b, const Raw& raw, Type type) {
  switch (type) {
    case Type::f32:
      return add_four<float>(sum, b, raw);
    case Type::f64:
      return add_four<double>(sum, b, raw);
    case Type::f16:
      return add_four<Half>(sum, b, raw);
    case Type::bf16:
      return add_four<BFloat16>(sum, b, raw);
  }
}

template <class Output, class T>
__device__ __forceinline__ void store_narrow(void* out, std::int64_t at, T scale, const Four<T>& sum, int count,
                                             bool wide) {
  Four<Output> four;
#pragma unroll
  for (int i = 0; i < 4; ++i) narrow(scale * sum.v[i], &four.v[i]);
  store_four(static_cast<Output*>(out) + at, four, count, wide);
}

template <class T>
__device__ __forceinline__ void store_scaled(const Row<T>& row, std::int64_t at, const Four<T>& sum, int count) {
  void* out = row.p.out_scaled;
  switch (row.p.out_scaled_type) {
    case Type::f32:
      return store_narrow<float>(out, at, row.scale, sum, count, row.wide);
    case Type::f64:
      return store_narrow<double>(out, at, row.scale, sum, count, row.wide);
    case Type::f16:
      return store_narrow<Half>(out, at, row.scale, sum, count, row.wide);
    case Type::bf16:
      return store_narrow<BFloat16>(out, at, row.scale, sum, count, row.wide);
  }
}

template <class T, int inputs>
__global__ void __launch_bounds__(kThreads) affine_groups(const Row<T> row) {
  const AffineParams& p = row.p;
  const Address address = row.noise_scale != T(0) ? settled(p.address) : p.address;
  const std::uint64_t groups = row.groups, total = groups * p.rows, stride = std::uint64_t(gridDim.x) * blockDim.x;
  for (std::uint64_t i = std::uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += stride) {
    const std::uint64_t sample = i / groups, group = i - sample * groups;
    const std::int64_t column = 4 * group, at = sample * p.columns + column;
    const int count = p.columns - column < 4 ? int(p.columns - column) : 4;

    Four<T> sum{};
    Raw y[inputs > 0 ? inputs : 1];
    if (p.x != nullptr) sum = load_four(static_cast<const T*>(p.x) + at, count, row.wide);
#pragma unroll
    for (int j = 0; j < inputs; ++j) y[j] = load_raw(p.y[j], p.y_type[j], at, count, row.wide);

    if (p.x != nullptr) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sum.v[e] = first_term(row.a, sum.v[e]);
    }
#pragma unroll
    for (int j = 0; j < inputs; ++j) add_raw(sum, row.b[j], y[j], p.y_type[j]);
    if (row.noise_scale != T(0)) {
      const Normals normals = normals_at(address, std::uint32_t(sample), std::uint32_t(group));
#pragma unroll
      for (int e = 0; e < 4; ++e) sum.v[e] = add_term(sum.v[e], row.noise_scale, normals.z[e]);
    }
    if (p.out != nullptr) store_four(static_cast<T*>(p.out) + at, sum, count, row.wide);
    if (p.out_scaled != nullptr) store_scaled(row, at, sum, count);
  }
}

template <class T>
const char* run(AffineParams p, Queue queue) {
  if (p.noise_scale == 0.0) {  // without noise rows do not matter: one long row has one tail
    p.columns *= p.rows;
    p.rows = p.columns > 0 ? 1 : 0;
  }
  Row<T> row{p, T(p.a), {}, T(p.noise_scale), T(p.scale), ceil_divide(p.columns, 4), true};
  row.wide = (p.rows == 1 || p.columns % 4 == 0) && aligned(p.x) && aligned(p.out) && aligned(p.out_scaled);
  for (int j = 0; j < p.inputs; ++j) {
    row.b[j] = T(p.b[j]);
    row.wide = row.wide && aligned(p.y[j]);
  }
  constexpr void (*kernels[])(Row<T>) = {affine_groups<T, 0>, affine_groups<T, 1>, affine_groups<T, 2>,
                                         affine_groups<T, 3>, affine_groups<T, 4>};
  return launch(kernels[p.inputs], ceil_divide(p.rows * row.groups, kThreads), kThreads, queue, row);
}

}  // namespace

const char* affine(const AffineParams& params, Queue queue) {
  return params.type == Type::f64 ? run<double>(params, queue) : run<float>(params, queue);
}

}  // namespace headstart::cuda
