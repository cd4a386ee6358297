// Division by a number that is known before the launch: a product and a shift in the kernel, where 64-bit division
// takes about a hundred instructions. "Division by Invariant Integers using Multiplication" (Granlund, Montgomery,
// 1994, https://doi.org/10.1145/178243.178249).
#pragma once

#include <cstdint>

namespace headstart::cuda {

struct Division {
  std::uint64_t divisor;
  std::uint32_t multiplier;  // 0: dividends of more than 31 bits, which are divided as they are
  int shift;
};

// For dividends below `limit`. With 2^(s-1) < divisor <= 2^s the multiplier ceil(2^(31+s) / divisor) makes a quotient
// too large by less than 1 / divisor, so that it never reaches the next integer.
inline Division division(std::uint64_t divisor, std::uint64_t limit) {
  constexpr std::uint64_t most = std::uint64_t(1) << 31;
  if (limit > most || divisor > most || divisor == 0) return {divisor, 0, 0};
  int bits = 0;
  while ((std::uint64_t(1) << bits) < divisor) ++bits;
  const std::uint64_t power = std::uint64_t(1) << (31 + bits);
  return {divisor, std::uint32_t((power + divisor - 1) / divisor), 31 + bits};
}

__device__ __forceinline__ std::uint64_t divide(std::uint64_t dividend, const Division& by) {
  if (by.multiplier == 0) return dividend / by.divisor;
  return std::uint64_t(std::uint32_t(dividend)) * by.multiplier >> by.shift;
}

}  // namespace headstart::cuda
