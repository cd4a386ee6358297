// log sum_k exp(a_k), and each term's share exp(a_k) / sum of the sum. Exponents are taken relative to the largest.
#pragma once

#include <cmath>

#include "config.h"

namespace headstart {

// What is subtracted before an exponential is taken: the largest exponent, or 0 where no term has any weight.
template <class Value>
HS_INLINE Value origin_of(Value largest) {
  return largest == Value{} - INFINITY ? Value{} : largest;
}

// A running sum, total exp(largest): "Online normalizer calculation for softmax" (Milakov, Gimelshein, 2018,
// https://arxiv.org/abs/1805.02867).
template <class T>
struct LogSumExp {
  T largest = -INFINITY, total = T(0);
};

// What a sum did with its newest term.
template <class T>
struct Added {
  T shrink, weight;  // all before it times `shrink`, and the term itself, relative to the largest so far
};

template <class T>
HS_INLINE Added<T> add_exponent(LogSumExp<T>& sum, T exponent) {
  const T largest = exponent > sum.largest ? exponent : sum.largest;
  const T origin = origin_of(largest);  // 0: a term of weight zero, before any other
  const Added<T> added{std::exp(sum.largest - origin), std::exp(exponent - origin)};
  sum.total = fma_rn(sum.total, added.shrink, added.weight);
  sum.largest = largest;
  return added;
}

template <class T>
HS_INLINE T logarithm(const LogSumExp<T>& sum) {
  return origin_of(sum.largest) + std::log(sum.total);
}

template <class T>
HS_INLINE T share(const LogSumExp<T>& sum, T exponent) {
  return sum.total == T(0) ? T(0) : std::exp(exponent - sum.largest) / sum.total;
}

// All terms at hand: each exponent becomes its share, and the logarithm of the sum is returned. `Value` is a number or
// a vector of them, `exp` and `log` are the functions for it.
template <class Value, class Exp, class Log>
HS_INLINE Value take_shares(Value* exponent, std::int64_t count, const Exp& exp, const Log& log) {
  Value largest = Value{} - INFINITY, total{};
  for (std::int64_t k = 0; k < count; ++k) largest = exponent[k] > largest ? exponent[k] : largest;
  const Value origin = origin_of(largest);
  for (std::int64_t k = 0; k < count; ++k) exponent[k] = exp(exponent[k] - origin);
  for (std::int64_t k = 0; k < count; ++k) total += exponent[k];
  const Value divisor = total == Value{} ? total + 1.0f : total;  // no term has any weight: all shares stay 0
  for (std::int64_t k = 0; k < count; ++k) exponent[k] /= divisor;
  return origin + log(total);
}

}  // namespace headstart
