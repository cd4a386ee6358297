// Stores past the caches, for results larger than they are: a plain store first reads the line it overwrites.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace headstart::cpu {

// Bytes an op may touch before its results are better kept out of the caches.
constexpr std::int64_t kCached = std::int64_t(24) << 20;

template <class T>
static inline void stream(T* to, const T* from, std::int64_t count) {
#if defined(__x86_64__)
  constexpr std::int64_t step = 16 / sizeof(T);
  std::int64_t i = 0;
  for (; i < count && reinterpret_cast<std::uintptr_t>(to + i) % 16 != 0; ++i) to[i] = from[i];
  for (; i + step <= count; i += step)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
  for (; i < count; ++i) to[i] = from[i];
#else
  std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
#endif
}

// What a thread calls after its last `stream`, before others may read.
static inline void finish_stream() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace headstart::cpu
