// A run of normals into a buffer, in lanes that the compiler maps onto vector registers.
#pragma once

#include <algorithm>

#include "../math/normal.h"

namespace headstart::cpu {

constexpr int kLanes = 16;

// Static: each instruction set must keep the copy compiled for it.

// Normals of kLanes (row, group) pairs, element after element. The address is a copy and the four results have arrays
// of their own, or the compiler must fear that a store changes the next lane's input, and gives up on vectors.
static inline void fill_lanes(float* __restrict z, const Address address, const std::uint32_t* __restrict row,
                              const std::uint32_t* __restrict group) {
  alignas(64) float z0[kLanes], z1[kLanes], z2[kLanes], z3[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const Normals normals = normals_at(address, row[lane], group[lane]);
    z0[lane] = normals.z[0];
    z1[lane] = normals.z[1];
    z2[lane] = normals.z[2];
    z3[lane] = normals.z[3];
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    z[4 * lane] = z0[lane];
    z[4 * lane + 1] = z1[lane];
    z[4 * lane + 2] = z2[lane];
    z[4 * lane + 3] = z3[lane];
  }
}

// z[4 i .. 4 i + 3] = normals of group `group + i` of `row`, for i < groups rounded up to kLanes: the buffer must have
// room for that.
static inline void fill_normals(float* z, const Address& address, std::uint32_t row, std::int64_t group,
                                std::int64_t groups) {
  alignas(64) std::uint32_t rows[kLanes], of[kLanes];
  std::fill(rows, rows + kLanes, row);
  for (std::int64_t first = 0; first < groups; first += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) of[lane] = static_cast<std::uint32_t>(group + first + lane);
    fill_lanes(z + 4 * first, address, rows, of);
  }
}

// The same for whole rows of few groups: lanes run over (row, group) pairs, so that short rows fill registers too.
static inline void fill_rows(float* z, const Address& address, std::uint32_t row, std::int64_t rows,
                             std::int64_t groups) {
  alignas(64) std::uint32_t row_of[kLanes], group_of[kLanes];
  std::uint32_t at = row, group = 0;
  for (std::int64_t first = 0; first < rows * groups; first += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      row_of[lane] = at;
      group_of[lane] = group;
      if (++group == groups) ++at, group = 0;
    }
    fill_lanes(z + 4 * first, address, row_of, group_of);
  }
}

}  // namespace headstart::cpu
