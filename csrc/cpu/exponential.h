// exp and log as plain arithmetic, for loops that the compiler vectorizes. For sums of exponentials only: exp takes
// arguments up to 80, log results of such sums; both are within a few units in the last place and pass NaN on.
#pragma once

#include <limits>

#include "../math/normal.h"

namespace headstart::cpu {

// Static: each instruction set must keep the copy compiled for it.

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2) / 2: the Taylor series of the rest is below rounding.
static inline float exp_of(float x) {
  constexpr float shift = 0x1.8p23f;  // adding it leaves the rounded integer in the low bits
  const float shifted = x * 1.44269504f + shift;
  const float n = shifted - shift;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // without a sign: far below, where the result is not used, the difference wraps around
  const std::uint32_t exponent = std::uint32_t(bits_of_float(shifted)) - std::uint32_t(bits_of_float(shift)) + 127u;
  const float value = p * float_of_bits(std::int32_t(exponent << 23));
  return x < -87.0f ? 0.0f : value;
}

static inline double exp_of(double x) {
  constexpr double shift = 0x1.8p52;
  const double shifted = x * 1.4426950408889634 + shift;
  const double n = shifted - shift;
  const double r = (x - n * 0x1.62e42fee00000p-1) + n * -0x1.a39ef35793c76p-33;
  double p = 1.0 / 6227020800;
  p = p * r + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  std::uint64_t bits, one;
  std::memcpy(&bits, &shifted, sizeof bits);
  std::memcpy(&one, &shift, sizeof one);
  const std::uint64_t power = (bits - one + 1023u) << 52;
  double scale;
  std::memcpy(&scale, &power, sizeof scale);
  return x < -708.0 ? 0.0 : p * scale;
}

static inline float log_of(float t) {
  const Mantissa mantissa = mantissa_of(t);
  const float value = mantissa.exponent * 0.6931472f + log_near_one(mantissa.value - 1.0f);
  return t > 0.0f ? value : t == 0.0f ? -std::numeric_limits<float>::infinity() : t;
}

// One step of Halley's method from the float logarithm, which triples its digits.
static inline double log_of(double t) {
  const double near = static_cast<double>(log_of(static_cast<float>(t)));
  const double e = exp_of(near);
  return t > 0.0 ? near + 2 * (t - e) / (t + e) : near;
}

}  // namespace headstart::cpu
