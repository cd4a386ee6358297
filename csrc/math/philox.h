// Philox4x32-10: four random words from a counter and a key, with no state.
// "Parallel random numbers: as easy as 1, 2, 3" (Salmon et al., 2011, https://doi.org/10.1145/2063384.2063405).
#pragma once

#include "config.h"

namespace headstart {

// Both halves of a 64-bit product of 32-bit words.
template <class Word>
struct Product {
  Word high, low;
};

HS_INLINE Product<std::uint32_t> multiply(std::uint32_t a, std::uint32_t factor) {
  const std::uint64_t product = std::uint64_t(a) * factor;
  return {std::uint32_t(product >> 32), std::uint32_t(product)};
}

template <class Word>
struct Counter {
  Word w0, w1, w2, w3;
};
using Words = Counter<std::uint32_t>;

// `Word` is one 32-bit word, or that of many counters (cpu/lanes.h).
template <class Word>
HS_INLINE Counter<Word> philox4x32(Counter<Word> counter, std::uint32_t key0, std::uint32_t key1) {
  HS_UNROLL
  for (int round = 0; round < 10; ++round) {
    const Product<Word> p0 = multiply(counter.w0, 0xD2511F53u), p1 = multiply(counter.w2, 0xCD9E8D57u);
    counter = {p1.high ^ counter.w1 ^ key0, p1.low, p0.high ^ counter.w3 ^ key1, p0.low};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Where a draw lives: sample `offset + row` of `seed`, at `step` of `stream`. Counter = (element / 4, sample, step,
// stream), key = seed; nothing else enters, so no thread, block, batch split or device can.
struct Address {
  std::uint64_t seed;
  std::uint32_t offset, step, stream;
  const std::uint64_t* origin;  // null, or where {seed, offset} stand, read when the kernel runs
};

// The address with its origin read: what a kernel calls once, before its loop.
HS_INLINE Address settled(Address address) {
  if (address.origin != nullptr) {
    address.seed = address.origin[0];
    address.offset = std::uint32_t(address.origin[1]);
  }
  return address;
}

HS_INLINE Words words_at(const Address& address, std::uint32_t row, std::uint32_t group) {
  const Words counter{group, address.offset + row, address.step, address.stream};
  return philox4x32(counter, std::uint32_t(address.seed), std::uint32_t(address.seed >> 32));
}

// Uniform in (0, 1] with 53 bits.
HS_INLINE double uniform53(Words w) {
  const std::uint64_t bits = (std::uint64_t(w.w0) << 21) | (w.w1 >> 11);
  return double(bits + 1) * 0x1p-53;
}

}  // namespace headstart
