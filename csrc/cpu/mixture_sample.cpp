// Samples of mixture components: mean, then the noise of every element, then one axis after the other, in this order on
// every device.
#include <algorithm>
#include <vector>

#include "../typed.h"
#include "isa.h"
#include "normals.h"
#include "parallel.h"

namespace headstart::cpu::HEADSTART_ISA {
namespace {

constexpr std::int64_t kPiece = 2048;

template <class T>
void add_axis(T* __restrict out, T coefficient, const T* __restrict axis, std::int64_t count) {
  for (std::int64_t d = 0; d < count; ++d) out[d] = fma_rn(coefficient, axis[d], out[d]);
}

// Elements column .. column + count - 1 of one sample; `along` holds its factors' normals.
template <class T>
void piece(const TypedMixtureSample<T>& p, std::int64_t row, std::int64_t column, std::int64_t count,
           const float* along, float* floor) {
  const std::int64_t k = p.component[row];
  const T* mean = p.mean + k * p.columns + column;
  const T* deviation = p.deviation + k * p.variance_columns;
  T* out = p.out + row * p.columns + column;
  fill_normals(floor, p.floor, static_cast<std::uint32_t>(row), column / 4, (count + 3) / 4);
  if (p.variance_columns == 1) {
    for (std::int64_t d = 0; d < count; ++d) out[d] = fma_rn(deviation[0], static_cast<T>(floor[d]), mean[d]);
  } else {
    deviation += column;
    for (std::int64_t d = 0; d < count; ++d) out[d] = fma_rn(deviation[d], static_cast<T>(floor[d]), mean[d]);
  }
  for (std::int64_t r = 0; r < p.rank; ++r) {
    const T coefficient = p.factor[k * p.rank + r] * static_cast<T>(along[r]);
    add_axis(out, coefficient, p.axes + (k * p.rank + r) * p.columns + column, count);
  }
}

template <class T>
void run(const TypedMixtureSample<T>& p, int threads) {
  parallel_for(p.rows, p.rows * p.columns * (p.rank + 8) < 65536 ? 1 : threads,
               [&p](std::int64_t begin, std::int64_t end) {
                 const std::int64_t groups = (p.rank + 3) / 4;
                 std::vector<float> along(4 * groups + kSlack), floor(kPiece + kSlack);
                 for (std::int64_t row = begin; row < end; ++row) {
                   fill_normals(along.data(), p.along, static_cast<std::uint32_t>(row), 0, groups);
                   for (std::int64_t column = 0; column < p.columns; column += kPiece)
                     piece(p, row, column, std::min(kPiece, p.columns - column), along.data(), floor.data());
                 }
               });
}

}  // namespace

void mixture_sample(const MixtureSampleParams& params, int threads) {
  params.type == Type::f64 ? run(typed<double>(params), threads) : run(typed<float>(params), threads);
}

}  // namespace headstart::cpu::HEADSTART_ISA
