// Four consecutive elements of a row: the unit of one Philox call, moved in one access of up to 16 bytes when the row
// allows it and one by one otherwise.
#pragma once

#include <cstdint>

namespace headstart::cuda {

template <class T>
struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) Four {
  T v[4];
};

// Whether every group of every row starts at an address that Four may be read from. Null counts as yes.
inline bool aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

template <class T>
__device__ __forceinline__ Four<T> load_four(const T* from, int count, bool wide) {
  if (wide && count == 4) return *reinterpret_cast<const Four<T>*>(from);
  Four<T> four{};
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < count) four.v[i] = from[i];
  return four;
}

template <class T>
__device__ __forceinline__ void store_four(T* to, const Four<T>& four, int count, bool wide) {
  if (wide && count == 4) {
    *reinterpret_cast<Four<T>*>(to) = four;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < count) to[i] = four.v[i];
}

}  // namespace headstart::cuda
