// 16-bit floats as bit patterns: exact widening, rounding to nearest even on the way back.
#pragma once

#include "config.h"

namespace headstart {

struct Half {
  std::uint16_t bits;
};

struct BFloat16 {
  std::uint16_t bits;
};

template <class T>
HS_INLINE T widen(float value) {
  return T(value);
}
template <class T>
HS_INLINE T widen(double value) {
  return T(value);
}
template <class T>
HS_INLINE T widen(BFloat16 value) {
  return T(float_of_bits(std::int32_t(std::uint32_t(value.bits) << 16)));
}
// The exponent is moved by a multiplication, which also makes subnormal halves exact; infinities and NaN are restored.
template <class T>
HS_INLINE T widen(Half value) {
  const std::int32_t magnitude = std::int32_t(value.bits & 0x7FFF) << 13;
  const std::int32_t sign = std::int32_t(std::uint32_t(value.bits & 0x8000) << 16);
  const std::int32_t finite = bits_of_float(float_of_bits(magnitude) * 0x1p112f);
  const std::int32_t bits = magnitude >= 0x0F800000 ? (magnitude | 0x7F800000) : finite;
  return T(float_of_bits(bits | sign));
}

HS_INLINE void narrow(float value, float* out) {
  *out = value;
}
HS_INLINE void narrow(double value, double* out) {
  *out = value;
}
HS_INLINE void narrow(double value, float* out) {
  *out = float(value);
}
HS_INLINE void narrow(float value, double* out) {
  *out = double(value);
}

HS_INLINE void narrow(float value, BFloat16* out) {
  const std::uint32_t bits = std::uint32_t(bits_of_float(value));
  const std::uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  out->bits = std::uint16_t(nan ? (bits >> 16) | 0x40u : rounded);
}

// Normal halves: rebias and round on the bits. Subnormal halves: adding 1/2 leaves the rounded value in the low bits.
HS_INLINE void narrow(float value, Half* out) {
  const std::uint32_t bits = std::uint32_t(bits_of_float(value));
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
  const float shifted = float_of_bits(std::int32_t(magnitude)) + 0.5f;
  const std::uint32_t subnormal = std::uint32_t(bits_of_float(shifted)) - 0x3F000000u;
  const std::uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const std::uint32_t large = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;  // NaN or infinity
  out->bits = std::uint16_t(sign | (magnitude >= 0x477FF000u ? large : finite));
}
template <class Small>
HS_INLINE void narrow(double value, Small* out) {
  narrow(float(value), out);
}

}  // namespace headstart
