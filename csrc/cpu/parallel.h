// parallel_for on the OpenMP runtime that torch has already loaded (GNU's), so that one pool of threads serves both;
// on plain threads when there is none.
#pragma once

#include <cstdint>
#include <functional>

namespace headstart::cpu {

// Calls body(begin, end) over [0, count) split evenly among at most `threads` threads.
void parallel_for(std::int64_t count, int threads, const std::function<void(std::int64_t, std::int64_t)>& body);

// Entry points of the GNU OpenMP runtime (GOMP_parallel, omp_get_thread_num, omp_get_num_threads); null: none loaded.
struct OpenMP {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
  int (*thread)();
  int (*team)();
};
void set_openmp(OpenMP runtime);

}  // namespace headstart::cpu
