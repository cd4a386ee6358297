// Loops of the affine row. The work is cut into pieces (whole short rows, or parts of a long one) whose noise is made
// at once, and those into blocks that stay in the first-level cache. Inputs of one type are taken in one pass; mixed
// types take a pass a run of equal types over the block, so memory is read and written once either way.
#include "../math/affine.h"

#include <algorithm>

#include "../typed.h"
#include "isa.h"
#include "normals.h"
#include "parallel.h"
#include "stream.h"

namespace headstart::cpu::HEADSTART_ISA {
namespace {

constexpr std::int64_t kPiece = 2048;
constexpr std::int64_t kBlock =
    512;  // short, so that loads of the next block overlap with streaming stores of this one

constexpr int kTerms = kInputs + 1;  // the noise is the last of them

template <class T>
struct Inputs {
  int count;
  const void* y[kTerms];
  Type type[kTerms];
  T b[kTerms];
};

// out = a x + sum_j b_j y_j for inputs of one type; out may be x.
template <int inputs, class T, class Input>
void combine(T* out, T a, const T* x, const T* b, const Input* const* y, std::int64_t count) {
  T factor[inputs > 0 ? inputs : 1] = {};
  const Input* input[inputs > 0 ? inputs : 1] = {};
  for (int j = 0; j < inputs; ++j) factor[j] = b[j], input[j] = y[j];
#pragma GCC ivdep  // out is no other input, and equal to x it is read before it is written
  for (std::int64_t i = 0; i < count; ++i) {
    T sum = first_term(a, x[i]);
#pragma GCC unroll 5
    for (int j = 0; j < inputs; ++j) sum = add_term(sum, factor[j], input[j][i]);
    out[i] = sum;
  }
}

template <class T, class Input>
void combine_run(T* out, T a, const T* x, const Inputs<T>& in, int first, int last, std::int64_t at,
                 std::int64_t count) {
  const Input* y[kTerms];
  for (int j = first; j < last; ++j) y[j - first] = static_cast<const Input*>(in.y[j]) + at;
  constexpr void (*combine_of[])(T*, T, const T*, const T*, const Input* const*, std::int64_t) = {
      combine<0>, combine<1>, combine<2>, combine<3>, combine<4>, combine<5>};
  combine_of[last - first](out, a, x, in.b + first, y, count);
}

// The row's elements at .. at + count - 1 of `in`, from x onward to out onward.
template <class T>
void combine_all(T* out, T a, const T* x, const Inputs<T>& in, std::int64_t at, std::int64_t count) {
  int first = 0;
  do {
    int last = first;
    while (last < in.count && in.type[last] == in.type[first]) ++last;
    switch (in.type[first]) {
      case Type::f32:
        combine_run<T, float>(out, a, x, in, first, last, at, count);
        break;
      case Type::f64:
        combine_run<T, double>(out, a, x, in, first, last, at, count);
        break;
      case Type::f16:
        combine_run<T, Half>(out, a, x, in, first, last, at, count);
        break;
      case Type::bf16:
        combine_run<T, BFloat16>(out, a, x, in, first, last, at, count);
        break;
    }
    a = 1, x = out, first = last;  // the next run is added to this one's sum
  } while (first < in.count);
}

template <class T, class Output>
void store(Output* __restrict out, T scale, const T* __restrict sum, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) narrow(scale * sum[i], out + i);
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

// How the outputs are written.
struct Writing {
  bool aside;   // the sum is not made in `out` itself: that is one of the y, or absent, or streamed to
  bool stream;  // past the caches
};

template <class T>
Writing choose_writing(const TypedAffine<T>& p) {
  std::int64_t bytes = 0;
  bool aliased = p.out == nullptr;
  for (int j = 0; j < p.inputs; ++j) {
    bytes += p.rows * p.columns * size_of(p.y_type[j]);
    aliased = aliased || p.y[j] == p.out;
  }
  bytes += 2 * p.rows * p.columns * static_cast<std::int64_t>(sizeof(T));
  const bool stream = p.out != nullptr && p.out != p.x && !aliased && bytes > kCached;
  return {aliased || stream, stream};
}

template <class T>
Inputs<T> inputs_of(const TypedAffine<T>& p, const float* z, std::int64_t at) {
  Inputs<T> in{};
  for (; in.count < p.inputs; ++in.count) {
    in.type[in.count] = p.y_type[in.count], in.b[in.count] = p.b[in.count];
    in.y[in.count] = static_cast<const char*>(p.y[in.count]) + at * size_of(p.y_type[in.count]);
  }
  if (z != nullptr) {
    in.y[in.count] = z, in.type[in.count] = Type::f32, in.b[in.count] = p.noise_scale;
    ++in.count;
  }
  return in;
}

// One piece: `count` elements from flat index `at`; z is its noise, or null.
template <class T>
void piece(const TypedAffine<T>& p, const Writing& writing, const float* z, std::int64_t at, std::int64_t count) {
  alignas(64) static const T zeros[kBlock] = {};
  alignas(64) T aside[kBlock];
  const Inputs<T> in = inputs_of(p, z, at);
  for (std::int64_t first = 0; first < count; first += kBlock) {
    const std::int64_t size = std::min(kBlock, count - first);
    const T* x = p.x != nullptr ? p.x + at + first : zeros;
    T* out = p.out != nullptr ? p.out + at + first : nullptr;
    T* sum = writing.aside ? aside : out;
    combine_all(sum, p.a, x, in, first, size);
    if (writing.stream) {
      stream(out, sum, size);
    } else if (writing.aside && out != nullptr) {
      std::copy(sum, sum + size, out);
    }
    if (p.out_scaled != nullptr) store_scaled(p.out_scaled, p.out_scaled_type, p.scale, sum, at + first, size);
  }
}

template <class T>
void run(TypedAffine<T> p, bool noisy, int threads) {
  if (noisy) p.address = settled(p.address);
  const Writing writing = choose_writing(p);
  if (!noisy) {
    const std::int64_t total = p.rows * p.columns, pieces = (total + kPiece - 1) / kPiece;
    parallel_for(pieces, total < 32768 ? 1 : threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        piece(p, writing, nullptr, i * kPiece, std::min(kPiece, total - i * kPiece));
      finish_stream();
    });
    return;
  }
  const std::int64_t padded = (p.columns + 3) / 4 * 4;
  const int team = p.rows * p.columns < 8192 ? 1 : threads;
  if (padded > kPiece / 4) {  // long rows: pieces of one row
    const std::int64_t pieces = (p.columns + kPiece - 1) / kPiece;
    parallel_for(p.rows * pieces, team, [&](std::int64_t begin, std::int64_t end) {
      alignas(64) float z[kPiece + kSlack];
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t row = i / pieces, column = i % pieces * kPiece;
        const std::int64_t count = std::min(kPiece, p.columns - column);
        fill_normals(z, p.address, static_cast<std::uint32_t>(row), column / 4, (count + 3) / 4);
        piece(p, writing, z, row * p.columns + column, count);
      }
      finish_stream();
    });
    return;
  }
  const std::int64_t batch = kPiece / padded, pieces = (p.rows + batch - 1) / batch;  // short rows: several a piece
  parallel_for(pieces, team, [&](std::int64_t begin, std::int64_t end) {
    alignas(64) float z[kPiece + kSlack];
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t row = i * batch, rows = std::min(batch, p.rows - row);
      fill_rows(z, p.address, static_cast<std::uint32_t>(row), rows, padded / 4);
      if (padded != p.columns) drop_padding(z, rows, p.columns, padded);
      piece(p, writing, z, row * p.columns, rows * p.columns);
    }
    finish_stream();
  });
}

}  // namespace

void affine(const AffineParams& params, int threads) {
  const bool noisy = params.noise_scale != 0.0;  // whatever it rounds to
  params.type == Type::f64 ? run(typed<double>(params), noisy, threads) : run(typed<float>(params), noisy, threads);
}

}  // namespace headstart::cpu::HEADSTART_ISA
