// What the scalar math needs from its compiler: one spelling for host and device, and the exact operations it is
// built of. Every function below rounds once, as IEEE 754 says, on every device: that is what makes the results of
// all builds equal bit for bit (contraction of a * b + c is off in both compilers).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__) || defined(HEADSTART_CUDA_ON_HOST)
#define HS_INLINE __host__ __device__ __forceinline__
#else
#define HS_INLINE inline __attribute__((always_inline))
#endif

#if defined(__CUDACC__)
#define HS_UNROLL _Pragma("unroll")
#else
#define HS_UNROLL _Pragma("GCC unroll 16")
#endif

namespace headstart {

HS_INLINE float fma_rn(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
HS_INLINE double fma_rn(double a, double b, double c) {
  return __builtin_fma(a, b, c);
}

HS_INLINE float sqrt_rn(float a) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(a);
#else
  return __builtin_sqrtf(a);
#endif
}

HS_INLINE float float_of_bits(std::int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

HS_INLINE std::int32_t bits_of_float(float value) {
  std::int32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

}  // namespace headstart
