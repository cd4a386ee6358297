// Standard normals from random words by Box-Muller, in a fixed sequence of correctly rounded operations: no library
// logarithm, sine or cosine, so that every device and vector width gives the same bits.
// "A Note on the Generation of Random Normal Deviates" (Box, Muller, 1958, https://doi.org/10.1214/aoms/1177706645).
// The polynomials are minimax fits made for this file; the result is within 4e-7 (1 + |z|) of exact arithmetic.
#pragma once

#include "philox.h"

namespace headstart {

struct Pair {
  float first, second;
};

// t = 2^exponent value, value in [sqrt(1/2), sqrt(2)), for normal positive t.
struct Mantissa {
  std::int32_t exponent;
  float value;
};

HS_INLINE Mantissa mantissa_of(float t) {
  const std::int32_t exponent = (bits_of_float(t) - 0x3F3504F3) >> 23;
  return {exponent, float_of_bits(bits_of_float(t) - exponent * 0x800000)};
}

// ln(1 + f) = f - f^2 / 2 + f^3 p(f) for 1 + f in [sqrt(1/2), sqrt(2)).
HS_INLINE float log_near_one(float f) {
  float p = -0.07634497f;
  p = fma_rn(p, f, 0.12761576f);
  p = fma_rn(p, f, -0.13160183f);
  p = fma_rn(p, f, 0.14201757f);
  p = fma_rn(p, f, -0.16623357f);
  p = fma_rn(p, f, 0.20001227f);
  p = fma_rn(p, f, -0.2500082f);
  p = fma_rn(p, f, 0.3333333f);
  const float square = f * f;
  return f + fma_rn(square * f, p, -0.5f * square);
}

// sqrt(-2 ln u), u = (h + 1/2) / 2^31, h = word / 2 rounded down. Near u = 1 the distance 1 - u is taken from the
// integer, so that small radii keep full precision; the largest radius is 6.66.
HS_INLINE float radius_of(std::uint32_t word) {
  const std::int32_t h = std::int32_t(word >> 1);
  const float u = fma_rn(float(h), 0x1p-31f, 0x1p-32f);
  const float below_one = -fma_rn(float(0x7FFFFFFF - h), 0x1p-31f, 0x1p-32f);
  const Mantissa mantissa = mantissa_of(u);
  const float f = mantissa.exponent == 0 ? below_one : mantissa.value - 1.0f;
  const float logarithm = fma_rn(float(mantissa.exponent), 0.6931472f, log_near_one(f));
  return sqrt_rn(-2.0f * logarithm);
}

HS_INLINE Pair box_muller(std::uint32_t radius_word, std::uint32_t angle_word) {
  const float radius = radius_of(radius_word);
  // angle = (quadrant + t) pi / 2 with t in [-1/2, 1/2)
  const std::uint32_t quadrant = (angle_word + 0x20000000u) >> 30;
  const float t = float(std::int32_t(angle_word << 2)) * 0x1p-32f;
  const float tt = t * t;
  float s = -0.004602177f;
  s = fma_rn(s, tt, 0.07968023f);
  s = fma_rn(s, tt, -0.6459635f);
  s = fma_rn(s, tt, 1.5707964f);
  s = s * t;
  float c = 0.0009036317f;
  c = fma_rn(c, tt, -0.020860072f);
  c = fma_rn(c, tt, 0.2536692f);
  c = fma_rn(c, tt, -1.2337005f);
  c = fma_rn(c, tt, 1.0f);
  const bool odd = (quadrant & 1) != 0;
  const std::int32_t cos_sign = std::int32_t(((quadrant + 1) & 2) << 30);
  const std::int32_t sin_sign = std::int32_t((quadrant & 2) << 30);
  const float cosine = float_of_bits(bits_of_float(odd ? s : c) ^ cos_sign);
  const float sine = float_of_bits(bits_of_float(odd ? c : s) ^ sin_sign);
  return {radius * cosine, radius * sine};
}

struct Normals {
  float z[4];
};

// Normals of elements 4 group .. 4 group + 3.
HS_INLINE Normals normals_at(const Address& address, std::uint32_t row, std::uint32_t group) {
  const Words w = words_at(address, row, group);
  const Pair a = box_muller(w.w0, w.w1), b = box_muller(w.w2, w.w3);
  return {{a.first, a.second, b.first, b.second}};
}

}  // namespace headstart
