#include <cstring>
#include <vector>

#include "isa.h"
#include "parallel.h"

namespace headstart::cpu {
namespace {

// The sets this machine runs, narrowest first.
std::vector<Kernels> available() {
  std::vector<Kernels> sets{baseline::kernels};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets.push_back(avx2::kernels);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    sets.push_back(avx512::kernels);
#endif
  return sets;
}

Kernels& active() {
  static Kernels kernels = available().back();
  return kernels;
}

}  // namespace

const char* isa() {
  return active().name;
}

bool set_isa(const char* name) {
  for (const Kernels& kernels : available()) {
    if (std::strcmp(kernels.name, name) == 0) {
      active() = kernels;
      return true;
    }
  }
  return false;
}

void affine(const AffineParams& params, int threads) {
  active().affine(params, threads);
}
void mixture(const MixtureParams& params, int threads) {
  active().mixture(params, threads);
}
void mixture_sample(const MixtureSampleParams& params, int threads) {
  active().mixture_sample(params, threads);
}

void uniform(const UniformParams& params, int threads) {
  parallel_for(params.rows, params.rows < 4096 ? 1 : threads, [&params](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      params.out[row] = uniform53(words_at(params.address, static_cast<std::uint32_t>(row), 0));
  });
}

void words(const WordsParams& params, int threads) {
  const std::int64_t lines = params.seeds * params.rows;
  parallel_for(lines * params.groups, threads, [&params](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t line = i / params.groups;
      Address address = params.address;
      address.seed += static_cast<std::uint64_t>(line / params.rows);
      const Words w = words_at(address, static_cast<std::uint32_t>(line % params.rows),
                               static_cast<std::uint32_t>(i % params.groups));
      std::memcpy(params.out + 4 * i, &w, sizeof w);
    }
  });
}

}  // namespace headstart::cpu
