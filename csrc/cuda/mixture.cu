// Chooses the kernel by what can own a sample.
#include "mixture.h"

namespace headstart::cuda {

const char* mixture(const MixtureParams& params, Queue queue) {
  if (params.projection != nullptr || params.columns > kFusedColumns) return mixture_block(params, queue);
  return params.columns <= kThreadColumns ? mixture_thread(params, queue) : mixture_warp(params, queue);
}

}  // namespace headstart::cuda
