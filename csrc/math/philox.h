// Philox4x32-10: four random words from a counter and a key, with no state.
// "Parallel random numbers: as easy as 1, 2, 3" (Salmon et al., 2011, https://doi.org/10.1145/2063384.2063405).
#pragma once

#include "config.h"

namespace headstart {

struct Words {
  std::uint32_t w0, w1, w2, w3;
};

HS_INLINE Words philox4x32(Words counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t(counter.w0) * 0xD2511F53u;
    const std::uint64_t p1 = std::uint64_t(counter.w2) * 0xCD9E8D57u;
    counter = {std::uint32_t(p1 >> 32) ^ counter.w1 ^ key0, std::uint32_t(p1),
               std::uint32_t(p0 >> 32) ^ counter.w3 ^ key1, std::uint32_t(p0)};
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
  return philox4x32({group, address.offset + row, address.step, address.stream}, std::uint32_t(address.seed),
                    std::uint32_t(address.seed >> 32));
}

// Uniform in (0, 1] with 53 bits.
HS_INLINE double uniform53(Words w) {
  const std::uint64_t bits = (std::uint64_t(w.w0) << 21) | (w.w1 >> 11);
  return double(bits + 1) * 0x1p-53;
}

}  // namespace headstart
