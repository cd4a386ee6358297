// Words of many counters at once: what the scalar formulas of math/philox.h are given instead of one word each. A word
// stands in the low half of a 64-bit lane, where products are made; the high half holds whatever the last one left.
#pragma once

#include <cstdint>

#include "../math/philox.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace headstart::cpu {

#if defined(__AVX512F__)
constexpr int kRegister = 64;  // bytes
#elif defined(__AVX2__)
constexpr int kRegister = 32;
#else
constexpr int kRegister = 16;
#endif
constexpr int kParts = 4;  // registers a word, enough to hide the products' latency
typedef std::uint64_t Wide __attribute__((vector_size(kRegister)));
constexpr int kWide = kRegister / 8;       // 64-bit lanes of a register
constexpr int kCounters = kParts * kWide;  // counters a pass

// Static: each instruction set must keep the copy compiled for it.

static inline Wide multiply_low(Wide a, std::uint32_t factor) {
#if defined(__AVX512F__)
  return (Wide)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, _mm512_set1_epi64(factor));  // unmasked, GCC 12 warns
#elif defined(__AVX2__)
  return (Wide)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(factor));
#elif defined(__x86_64__)
  return (Wide)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(factor));
#elif defined(__ARM_NEON)
  return (Wide)vmull_u32(vmovn_u64((uint64x2_t)a), vdup_n_u32(factor));
#else
  return (a & 0xFFFFFFFFu) * factor;
#endif
}

struct Lanes {
  Wide part[kParts];
};

static inline Lanes operator^(const Lanes& a, const Lanes& b) {
  Lanes c;
#pragma GCC unroll 4
  for (int i = 0; i < kParts; ++i) c.part[i] = a.part[i] ^ b.part[i];
  return c;
}

static inline Lanes operator^(const Lanes& a, std::uint32_t b) {
  Lanes c;
#pragma GCC unroll 4
  for (int i = 0; i < kParts; ++i) c.part[i] = a.part[i] ^ b;
  return c;
}

static inline Product<Lanes> multiply(const Lanes& a, std::uint32_t factor) {
  Product<Lanes> product;
#pragma GCC unroll 4
  for (int i = 0; i < kParts; ++i) {
    product.low.part[i] = multiply_low(a.part[i], factor);
    product.high.part[i] = product.low.part[i] >> 32;
  }
  return product;
}

}  // namespace headstart::cpu
