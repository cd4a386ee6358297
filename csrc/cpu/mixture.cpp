#include "mixture.h"

namespace headstart::cpu::HEADSTART_ISA {

void mixture(const MixtureParams& params, int threads) {
  const bool small = params.projection == nullptr && (params.rank > 0 || params.columns <= kFusedColumns);
  small ? mixture_lane(params, threads) : mixture_row(params, threads);
}

}  // namespace headstart::cpu::HEADSTART_ISA
