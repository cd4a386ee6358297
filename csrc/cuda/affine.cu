// One thread, one or two groups of four elements at a time: read every input once, one Philox call a group, write each
// output once. Groups of one thread stand a block apart, so that the threads of a warp read whole sectors one after
// another, 16 bytes each (8 of a 16-bit type: 16 would leave gaps between the state's).
#include <cstring>

#include "../math/affine.h"
#include "../math/normal.h"
#include "../typed.h"
#include "division.h"
#include "group.h"
#include "launch.h"

namespace headstart::cuda {
namespace {

template <class T>
struct Row {
  TypedAffine<T> p;
  std::uint64_t groups, total;  // of four elements, in a row and in all
  Division by_groups;
  bool wide;
};

// Groups a thread has in flight: a row of few inputs needs two to keep the memory busy.
template <class T, int inputs>
constexpr int kGroups = sizeof(T) == 4 && inputs < 2 ? 2 : 1;

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
      return store_narrow<float>(out, at, row.p.scale, sum, count, row.wide);
    case Type::f64:
      return store_narrow<double>(out, at, row.p.scale, sum, count, row.wide);
    case Type::f16:
      return store_narrow<Half>(out, at, row.p.scale, sum, count, row.wide);
    case Type::bf16:
      return store_narrow<BFloat16>(out, at, row.p.scale, sum, count, row.wide);
  }
}

// One group: where it is, and what was read of it.
template <class T, int inputs>
struct Group {
  std::uint32_t sample, group;
  std::int64_t at;
  int count;  // of its elements inside the row: 0 for a group beyond the end
  Four<T> sum;
  Raw y[inputs > 0 ? inputs : 1];
};

template <class T, int inputs, bool noise>
__device__ __forceinline__ void read(Group<T, inputs>& own, const Row<T>& row, std::uint64_t i) {
  const TypedAffine<T>& p = row.p;
  const std::uint64_t sample = noise ? divide(i, row.by_groups) : 0, group = i - sample * row.groups;
  const std::int64_t column = 4 * group, left = i < row.total ? p.columns - column : 0;
  own.sample = std::uint32_t(sample), own.group = std::uint32_t(group);
  own.at = sample * p.columns + column;
  own.count = left < 4 ? int(left) : 4;
  own.sum = Four<T>{};
  if (p.x != nullptr) own.sum = load_four(p.x + own.at, own.count, row.wide);
#pragma unroll
  for (int j = 0; j < inputs; ++j) own.y[j] = load_raw(p.y[j], p.y_type[j], own.at, own.count, row.wide);
}

template <class T, int inputs, bool noise>
__device__ __forceinline__ void finish(Group<T, inputs>& own, const Row<T>& row, const Address& address) {
  const TypedAffine<T>& p = row.p;
  if (p.x != nullptr) {
#pragma unroll
    for (int e = 0; e < 4; ++e) own.sum.v[e] = first_term(p.a, own.sum.v[e]);
  }
#pragma unroll
  for (int j = 0; j < inputs; ++j) add_raw(own.sum, p.b[j], own.y[j], p.y_type[j]);
  if (noise) {
    const Normals normals = normals_at(address, own.sample, own.group);
#pragma unroll
    for (int e = 0; e < 4; ++e) own.sum.v[e] = add_term(own.sum.v[e], p.noise_scale, normals.z[e]);
  }
  if (p.out != nullptr) store_four(p.out + own.at, own.sum, own.count, row.wide);
  if (p.out_scaled != nullptr) store_scaled(row, own.at, own.sum, own.count);
}

template <class T, int inputs, bool noise>
__global__ void __launch_bounds__(kThreads) affine_groups(const Row<T> row) {
  constexpr int count = kGroups<T, inputs>;
  const Address address = noise ? settled(row.p.address) : Address{};
  const std::uint64_t stride = std::uint64_t(gridDim.x) * (kThreads * count);
  for (std::uint64_t i = std::uint64_t(blockIdx.x) * (kThreads * count) + threadIdx.x; i < row.total; i += stride) {
    Group<T, inputs> group[count];
#pragma unroll
    for (int g = 0; g < count; ++g) read<T, inputs, noise>(group[g], row, i + g * kThreads);
#pragma unroll
    for (int g = 0; g < count; ++g) finish<T, inputs, noise>(group[g], row, address);
  }
}

template <class T, int inputs>
const char* start(const Row<T>& row, Queue queue) {
  const std::int64_t blocks = ceil_divide(std::int64_t(row.total), kThreads * kGroups<T, inputs>);
  constexpr void (*with)(Row<T>) = affine_groups<T, inputs, true>, (*without)(Row<T>) = affine_groups<T, inputs, false>;
  return launch(row.p.noise_scale != T(0) ? with : without, blocks, kThreads, queue, row);
}

constexpr std::uint64_t kBeyond = 2 * kThreads;  // how far past the end a thread may look for a second group

template <class T>
const char* run(TypedAffine<T> p, Queue queue) {
  if (p.noise_scale == T(0)) {  // without noise rows do not matter: one long row has one tail
    p.columns *= p.rows;
    p.rows = p.columns > 0 ? 1 : 0;
  }
  const std::uint64_t groups = ceil_divide(p.columns, 4), total = groups * p.rows;
  Row<T> row{p, groups, total, division(groups, total + kBeyond), true};
  row.wide = (p.rows == 1 || p.columns % 4 == 0) && aligned(p.x) && aligned(p.out) && aligned(p.out_scaled);
  for (int j = 0; j < p.inputs; ++j) row.wide = row.wide && aligned(p.y[j]);
  constexpr const char* (*starts[])(const Row<T>&, Queue) = {start<T, 0>, start<T, 1>, start<T, 2>, start<T, 3>,
                                                             start<T, 4>};
  return starts[p.inputs](row, queue);
}

}  // namespace

const char* affine(const AffineParams& params, Queue queue) {
  return params.type == Type::f64 ? run(typed<double>(params), queue) : run(typed<float>(params), queue);
}

}  // namespace headstart::cuda
