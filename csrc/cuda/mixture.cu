// Chooses the kernel: fused for samples of few elements, in two ways, by rows otherwise.
#include "mixture.h"

namespace headstart::cuda {

const char* mixture(const MixtureParams& params, Queue queue) {
  const bool small = params.projection == nullptr && params.columns <= kSmallColumns;
  if (!small && params.axes != nullptr && params.projection == nullptr)
    return "axes of more than 128 columns need their projection";
  if (small && params.columns <= kTinyColumns) return mixture_tiny(params, queue);
  return small ? mixture_small(params, queue) : mixture_large(params, queue);
}

}  // namespace headstart::cuda
