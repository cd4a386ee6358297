// The loops in this folder are compiled once for each vector instruction set, in a namespace of its own
// (HEADSTART_ISA, given by the build); dispatch.cpp picks a set at run time.
#pragma once

#include "../kernels.h"

namespace headstart::cpu {

struct Kernels {
  const char* name;
  void (*affine)(const AffineParams&, int);
  void (*mixture)(const MixtureParams&, int);
  void (*mixture_sample)(const MixtureSampleParams&, int);
};

#define HEADSTART_DECLARE(ISA)                                             \
  namespace ISA {                                                          \
  void affine(const AffineParams&, int);                                   \
  void mixture(const MixtureParams&, int);                                 \
  void mixture_sample(const MixtureSampleParams&, int);                    \
  inline constexpr Kernels kernels{#ISA, affine, mixture, mixture_sample}; \
  }
HEADSTART_DECLARE(baseline)
#if defined(__x86_64__)
HEADSTART_DECLARE(avx2)
HEADSTART_DECLARE(avx512)
#endif
#undef HEADSTART_DECLARE

}  // namespace headstart::cpu
