// Sums over the 32 threads of a warp. Every lane gets the same bits.
#pragma once

namespace headstart::cuda {

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, lanes);
  return value;
}

template <class T>
__device__ __forceinline__ T warp_largest(T value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const T other = __shfl_xor_sync(0xFFFFFFFFu, value, lanes);
    value = other > value ? other : value;
  }
  return value;
}

}  // namespace headstart::cuda
