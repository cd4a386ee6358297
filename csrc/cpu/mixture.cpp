#include "mixture.h"

namespace headstart::cpu::HEADSTART_ISA {

void mixture(const MixtureParams& params, int threads) {
  const bool small = params.projection == nullptr && (params.rank > 0 || params.columns <= 128);
  small ? mixture_lanes(params, threads) : mixture_rows(params, threads);
}

}  // namespace headstart::cpu::HEADSTART_ISA
