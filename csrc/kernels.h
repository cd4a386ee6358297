// The whole kernel API. Plain structs of addresses and sizes: no framework, no ownership, no checks (those are made in
// Python, before any pointer is taken). `rows` are samples B, `columns` elements D of one sample; tensors are
// contiguous; every size is 64-bit.
#pragma once

#include <cstdint>

#include "math/philox.h"

namespace headstart {

enum class Type : int { f32 = 0, f64 = 1, f16 = 2, bf16 = 3 };

// Bytes of an element.
HS_INLINE constexpr std::int64_t size_of(Type type) {
  return type == Type::f64 ? 8 : type == Type::f32 ? 4 : 2;
}

constexpr int kInputs = 4;                   // an affine row takes at most
constexpr std::int64_t kFusedColumns = 128;  // up to here a mixture's projections are made inside its kernel

// out = a x + sum_j b_j y_j + noise_scale z;  out_scaled = scale out.  z is skipped when noise_scale is 0.
struct AffineParams {
  std::int64_t rows, columns;
  Type type;      // of x and out: f32 or f64
  const void* x;  // may be null: then a x is 0
  double a;
  int inputs;  // 0 to kInputs
  const void* y[kInputs];
  Type y_type[kInputs];
  double b[kInputs];
  double noise_scale;
  Address address;
  void* out;         // may be null when out_scaled is not
  void* out_scaled;  // may be null
  Type out_scaled_type;
  double scale;
};

// Mixture posterior at one noise level; the tables are those of math/component.h. With `projection` given, y is read
// from it and the sum over axes is left to the caller, who gets its coefficients g_k gain_r y_r in `coefficient`;
// without it, and with axes, a device takes D up to kFusedColumns. With `whitening` given (CPU only), distances are
// |whitening (x - mean)|^2 and axes serve the posterior mean alone.
struct MixtureParams {
  std::int64_t rows, components, columns, rank;
  Type type;                         // of every tensor: f32 or f64
  const void* x;                     // [B, D]
  const void* mean;                  // [K, D]
  const void* precision;             // [K, V]
  const void* keep;                  // [K, V]
  std::int64_t variance_columns;     // V: D or 1
  const void* axes;                  // [K, R, D], null when rank is 0 or projection is given
  const void* drop;                  // [K, R]
  const void* gain;                  // [K, R]
  const void* log_constant;          // [K] or [B, K]: log weight + constant
  std::int64_t log_constant_stride;  // 0 or K
  const void* projection;            // [B, K, R] or null
  const void* whitening;             // [K, D, D], lower triangular, or null
  void* log_prob;                    // [B]
  void* responsibility;              // [B, K]; null where not asked for, on the CPU
  void* denoised;                    // [B, D] or null
  void* coefficient;                 // [B, K, R] or null
};

// x = mean_k + deviation_k n + sum_r factor_kr z_r axes_kr, k = component[row]
struct MixtureSampleParams {
  std::int64_t rows, columns, rank;
  Type type;                      // of every floating tensor: f32 or f64
  const std::int64_t* component;  // [B]
  const void* mean;               // [K, D]
  const void* deviation;          // [K, V]
  std::int64_t variance_columns;  // V: D or 1
  const void* axes;               // [K, R, D] or null
  const void* factor;             // [K, R] or null
  Address floor, along;           // addresses of n and of z
  void* out;                      // [B, D]
};

struct UniformParams {
  std::int64_t rows;
  Address address;
  double* out;  // [B]
};

// The raw words behind every draw, for tests of the generator: seeds `address.seed + i`, each of `rows` samples of
// `groups` groups of four words.
struct WordsParams {
  std::int64_t seeds, rows, groups;
  Address address;
  std::uint32_t* out;  // [seeds, B, groups, 4]
};

namespace cpu {
void affine(const AffineParams& params, int threads);
void mixture(const MixtureParams& params, int threads);
void mixture_sample(const MixtureSampleParams& params, int threads);
void uniform(const UniformParams& params, int threads);
void words(const WordsParams& params, int threads);  // here only: a device calls the same function of math/philox.h
const char* isa();                                   // vector width in use: "baseline", "avx2", "avx512"
bool set_isa(const char* name);                      // false: unknown here
}  // namespace cpu

namespace cuda {
// Where a kernel is launched; `stream` is a cudaStream_t of that device.
struct Queue {
  int device;
  void* stream;
};

// Each returns nullptr, or the error's text.
const char* affine(const AffineParams& params, Queue queue);
const char* mixture(const MixtureParams& params, Queue queue);
const char* mixture_sample(const MixtureSampleParams& params, Queue queue);
const char* uniform(const UniformParams& params, Queue queue);
}  // namespace cuda

}  // namespace headstart
