// A run of normals into a buffer: the formulas of math/ on as many counters as the vector registers hold.
#pragma once

#include "../math/normal.h"
#include "lanes.h"

namespace headstart::cpu {

constexpr std::int64_t kSlack = 4 * kCounters;  // what a run may write beyond its end, in normals

// Static: each instruction set must keep the copy compiled for it.

// Words of consecutive lanes, from parts that hold the even and the odd ones.
static inline void gather_words(const Lanes& lanes, std::uint32_t* words) {
  typedef std::uint32_t Narrow __attribute__((vector_size(kRegister)));
  for (int i = 0; i < kParts; i += 2) {
    const Wide both = (lanes.part[i] & 0xFFFFFFFFu) | (lanes.part[i + 1] << 32);
    *reinterpret_cast<Narrow*>(words + i * kWide) = (Narrow)both;
  }
}

// The other way: lanes whose word is words[i].
static inline Lanes spread_words(const std::uint32_t* words) {
  Lanes lanes;
  for (int i = 0; i < kParts; i += 2) {
    Wide both;
    std::memcpy(&both, words + i * kWide, sizeof both);
    lanes.part[i] = both;
    lanes.part[i + 1] = both >> 32;
  }
  return lanes;
}

static inline Lanes same_word(std::uint32_t word) {
  Lanes lanes;
  for (int i = 0; i < kParts; ++i) lanes.part[i] = Wide{} + word;
  return lanes;
}

// Normals of kCounters (row, group) pairs, element after element. The four results have arrays of their own, or the
// compiler must fear that a store changes the next lane's input, and gives up on vectors.
static inline void fill_lanes(float* __restrict z, const Address& address, const Lanes& sample, const Lanes& group) {
  Counter<Lanes> counter{group, sample, same_word(address.step), same_word(address.stream)};
  counter = philox4x32(counter, std::uint32_t(address.seed), std::uint32_t(address.seed >> 32));
  alignas(64) std::uint32_t w0[kCounters], w1[kCounters], w2[kCounters], w3[kCounters];
  gather_words(counter.w0, w0);
  gather_words(counter.w1, w1);
  gather_words(counter.w2, w2);
  gather_words(counter.w3, w3);
  alignas(64) float z0[kCounters], z1[kCounters], z2[kCounters], z3[kCounters];
  for (int lane = 0; lane < kCounters; ++lane) {
    const Pair pair = box_muller(w0[lane], w1[lane]);
    z0[lane] = pair.first;
    z1[lane] = pair.second;
  }
  for (int lane = 0; lane < kCounters; ++lane) {
    const Pair pair = box_muller(w2[lane], w3[lane]);
    z2[lane] = pair.first;
    z3[lane] = pair.second;
  }
  for (int lane = 0; lane < kCounters; ++lane) {
    z[4 * lane] = z0[lane];
    z[4 * lane + 1] = z1[lane];
    z[4 * lane + 2] = z2[lane];
    z[4 * lane + 3] = z3[lane];
  }
}

// z[4 i .. 4 i + 3] = normals of group `group + i` of `row`, for i < groups; the buffer must have room for kSlack more.
static inline void fill_normals(float* z, const Address& address, std::uint32_t row, std::int64_t group,
                                std::int64_t groups) {
  const Lanes sample = same_word(address.offset + row);
  alignas(64) std::uint32_t of[kCounters];
  for (std::int64_t first = 0; first < groups; first += kCounters) {
    for (int lane = 0; lane < kCounters; ++lane) of[lane] = static_cast<std::uint32_t>(group + first + lane);
    fill_lanes(z + 4 * first, address, sample, spread_words(of));
  }
}

// The same for whole rows of few groups: lanes run over (row, group) pairs, so that short rows fill registers too.
static inline void fill_rows(float* z, const Address& address, std::uint32_t row, std::int64_t rows,
                             std::int64_t groups) {
  alignas(64) std::uint32_t sample[kCounters], of[kCounters];
  std::uint32_t at = address.offset + row, group = 0;
  for (std::int64_t first = 0; first < rows * groups; first += kCounters) {
    for (int lane = 0; lane < kCounters; ++lane) {
      sample[lane] = at;
      of[lane] = group;
      if (++group == groups) ++at, group = 0;
    }
    fill_lanes(z + 4 * first, address, spread_words(sample), spread_words(of));
  }
}

}  // namespace headstart::cpu
