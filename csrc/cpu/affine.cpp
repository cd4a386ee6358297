// Loops of the affine row. The work is cut into pieces of at most kPiece elements (whole short rows, or parts of a
// long one); a piece is accumulated in a buffer that stays in the first-level cache, one simple pass a term, so the
// mixed types need no combinations and memory is still read and written once.
#include "../math/affine.h"

#include <algorithm>

#include "isa.h"
#include "normals.h"
#include "parallel.h"

namespace headstart::cpu::HEADSTART_ISA {
namespace {

constexpr std::int64_t kPiece = 2048;

template <class T, class Input>
void start(T* __restrict sum, T a, const Input* __restrict x, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] = first_term(a, x[i]);
}

template <class T, class Input>
void add(T* __restrict sum, T b, const Input* __restrict y, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] = add_term(sum[i], b, y[i]);
}

template <class T, class Output>
void store(Output* __restrict out, T scale, const T* __restrict sum, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) narrow(scale * sum[i], out + i);
}

template <class T, class Output>
void copy(Output* __restrict out, const T* __restrict sum, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = sum[i];
}

template <class T>
void add_input(T* sum, T b, const void* y, Type type, std::int64_t at, std::int64_t count) {
  switch (type) {
    case Type::f32:
      return add(sum, b, static_cast<const float*>(y) + at, count);
    case Type::f64:
      return add(sum, b, static_cast<const double*>(y) + at, count);
    case Type::f16:
      return add(sum, b, static_cast<const Half*>(y) + at, count);
    case Type::bf16:
      return add(sum, b, static_cast<const BFloat16*>(y) + at, count);
  }
}

template <class T>
void store_scaled(void* out, Type type, T scale, const T* sum, std::int64_t at, std::int64_t count) {
  switch (type) {
    case Type::f32:
      return store(static_cast<float*>(out) + at, scale, sum, count);
    case Type::f64:
      return store(static_cast<double*>(out) + at, scale, sum, count);
    case Type::f16:
      return store(static_cast<Half*>(out) + at, scale, sum, count);
    case Type::bf16:
      return store(static_cast<BFloat16*>(out) + at, scale, sum, count);
  }
}

// Rows of `padded` normals to rows of `columns`, in place.
void drop_padding(float* z, std::int64_t rows, std::int64_t columns, std::int64_t padded) {
  for (std::int64_t row = 1; row < rows; ++row)
    for (std::int64_t i = 0; i < columns; ++i) z[row * columns + i] = z[row * padded + i];
}

// One piece: `count` elements from flat index `at`; z is its noise, or null.
template <class T>
void piece(const AffineParams& p, const float* z, std::int64_t at, std::int64_t count) {
  alignas(64) T sum[kPiece];
  if (p.x != nullptr) {
    start(sum, static_cast<T>(p.a), static_cast<const T*>(p.x) + at, count);
  } else {
    std::fill(sum, sum + count, T(0));
  }
  for (int j = 0; j < p.inputs; ++j) add_input(sum, static_cast<T>(p.b[j]), p.y[j], p.y_type[j], at, count);
  if (z != nullptr) add(sum, static_cast<T>(p.noise_scale), z, count);
  if (p.out != nullptr) copy(static_cast<T*>(p.out) + at, sum, count);
  if (p.out_scaled != nullptr) store_scaled(p.out_scaled, p.out_scaled_type, static_cast<T>(p.scale), sum, at, count);
}

template <class T>
void run(AffineParams p, int threads) {
  const bool noisy = p.noise_scale != 0.0;
  if (noisy) p.address = settled(p.address);
  if (!noisy) {
    const std::int64_t total = p.rows * p.columns, pieces = (total + kPiece - 1) / kPiece;
    parallel_for(pieces, total < 32768 ? 1 : threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) piece<T>(p, nullptr, i * kPiece, std::min(kPiece, total - i * kPiece));
    });
    return;
  }
  const std::int64_t padded = (p.columns + 3) / 4 * 4;
  const int team = p.rows * p.columns < 8192 ? 1 : threads;
  if (padded > kPiece / 4) {  // long rows: pieces of one row
    const std::int64_t pieces = (p.columns + kPiece - 1) / kPiece;
    parallel_for(p.rows * pieces, team, [&](std::int64_t begin, std::int64_t end) {
      alignas(64) float z[kPiece + 4 * kLanes];
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t row = i / pieces, column = i % pieces * kPiece;
        const std::int64_t count = std::min(kPiece, p.columns - column);
        fill_normals(z, p.address, static_cast<std::uint32_t>(row), column / 4, (count + 3) / 4);
        piece<T>(p, z, row * p.columns + column, count);
      }
    });
    return;
  }
  const std::int64_t batch = kPiece / padded, pieces = (p.rows + batch - 1) / batch;  // short rows: several a piece
  parallel_for(pieces, team, [&](std::int64_t begin, std::int64_t end) {
    alignas(64) float z[kPiece + 4 * kLanes];
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t row = i * batch, rows = std::min(batch, p.rows - row);
      fill_rows(z, p.address, static_cast<std::uint32_t>(row), rows, padded / 4);
      if (padded != p.columns) drop_padding(z, rows, p.columns, padded);
      piece<T>(p, z, row * p.columns, rows * p.columns);
    }
  });
}

}  // namespace

void affine(const AffineParams& params, int threads) {
  if (params.type == Type::f64) {
    run<double>(params, threads);
  } else {
    run<float>(params, threads);
  }
}

}  // namespace headstart::cpu::HEADSTART_ISA
