// A block takes a tile: whole short rows, or a stretch of one long row, one thread a group of four elements. The
// weights factor_r z_r of its rows are made once, in shared memory, a run of axes at a time.
#include "../math/normal.h"
#include "../typed.h"
#include "group.h"
#include "launch.h"

namespace headstart::cuda {
namespace {

constexpr int kTile = 128;      // threads, hence groups, of a tile
constexpr int kWeights = 2048;  // in shared memory: 16 axes of 128 rows, up to 2048 axes of one

struct Tiling {
  std::int64_t column_tiles, tiles;
  int rows, width;  // rows of a tile; groups of a tile's row
  int axes;         // of one run, a multiple of 4
  bool wide;
};

template <class T>
__device__ void fill_weights(T* weight, const TypedMixtureSample<T>& p, const Tiling& tiling, std::int64_t first_row,
                             std::int64_t first_axis) {
  const int quads = tiling.axes / 4;
  for (int i = threadIdx.x; i < tiling.rows * quads; i += kTile) {
    const std::int64_t row = first_row + i / quads, axis = first_axis + 4 * (i % quads);
    if (row >= p.rows || axis >= p.rank) continue;
    const T* factor = p.factor + p.component[row] * p.rank;
    const Normals z = normals_at(p.along, std::uint32_t(row), std::uint32_t(axis / 4));
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (axis + e < p.rank) weight[4 * i + e] = factor[axis + e] * T(z.z[e]);
  }
}

template <class T>
__device__ __forceinline__ Four<T> start_four(const TypedMixtureSample<T>& p, std::int64_t row, std::int64_t component,
                                              std::int64_t column, int count, bool wide) {
  const Normals n = normals_at(p.floor, std::uint32_t(row), std::uint32_t(column / 4));
  Four<T> sum = load_four(p.mean + component * p.columns + column, count, wide);
  if (p.variance_columns == 1) {
    const T same = p.deviation[component];
#pragma unroll
    for (int e = 0; e < 4; ++e) sum.v[e] = fma_rn(same, T(n.z[e]), sum.v[e]);
  } else {
    const Four<T> four = load_four(p.deviation + component * p.columns + column, count, wide);
#pragma unroll
    for (int e = 0; e < 4; ++e) sum.v[e] = fma_rn(four.v[e], T(n.z[e]), sum.v[e]);
  }
  return sum;
}

template <class T>
__global__ void __launch_bounds__(kTile) mixture_sample_tiles(const TypedMixtureSample<T> p, const Tiling tiling) {
  __shared__ T weight[kWeights];
  const int local_row = threadIdx.x / tiling.width, local_group = threadIdx.x % tiling.width;
  for (std::int64_t tile = blockIdx.x; tile < tiling.tiles; tile += gridDim.x) {
    const std::int64_t first_row = tile / tiling.column_tiles * tiling.rows, row = first_row + local_row;
    const std::int64_t column = 4 * (tile % tiling.column_tiles * tiling.width + local_group);
    const bool mine = local_row < tiling.rows && row < p.rows && column < p.columns;
    const int count = p.columns - column < 4 ? int(p.columns - column) : 4;
    const std::int64_t component = mine ? p.component[row] : 0;
    Four<T> sum{};
    if (mine) sum = start_four(p, row, component, column, count, tiling.wide);
    for (std::int64_t first = 0; first < p.rank; first += tiling.axes) {
      __syncthreads();  // the previous run has been used
      fill_weights(weight, p, tiling, first_row, first);
      __syncthreads();
      const int run = p.rank - first < tiling.axes ? int(p.rank - first) : tiling.axes;
      const T* axes = p.axes + (component * p.rank + first) * p.columns + column;
      for (int r = 0; mine && r < run; ++r, axes += p.columns) {
        const Four<T> axis = load_four(axes, count, tiling.wide);
        const T along = weight[local_row * tiling.axes + r];
#pragma unroll
        for (int e = 0; e < 4; ++e) sum.v[e] = fma_rn(along, axis.v[e], sum.v[e]);
      }
    }
    if (mine) store_four(p.out + row * p.columns + column, sum, count, tiling.wide);
  }
}

template <class T>
const char* run(const TypedMixtureSample<T>& p, Queue queue) {
  if (p.rows == 0 || p.columns == 0) return nullptr;
  Tiling tiling{};
  const std::int64_t groups = ceil_divide(p.columns, 4);
  tiling.width = int(std::min<std::int64_t>(groups, kTile));
  tiling.rows = kTile / tiling.width;
  tiling.column_tiles = ceil_divide(groups, tiling.width);
  tiling.tiles = ceil_divide(p.rows, tiling.rows) * tiling.column_tiles;
  tiling.axes = kWeights / tiling.rows / 4 * 4;
  tiling.wide = p.columns % 4 == 0 && aligned(p.mean) && aligned(p.axes) && aligned(p.out) &&
                (p.variance_columns == 1 || aligned(p.deviation));
  return launch(mixture_sample_tiles<T>, tiling.tiles, kTile, queue, p, tiling);
}

}  // namespace

const char* mixture_sample(const MixtureSampleParams& params, Queue queue) {
  return params.type == Type::f64 ? run(typed<double>(params), queue) : run(typed<float>(params), queue);
}

}  // namespace headstart::cuda
