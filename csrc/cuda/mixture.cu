// Chooses the kernel: fused for samples of few elements, by rows otherwise.
#include "mixture.h"

namespace headstart::cuda {

const char* mixture(const MixtureParams& params, Queue queue) {
  const bool small = params.projection == nullptr && params.columns <= kSmallColumns;
  if (!small && params.axes != nullptr && params.projection == nullptr)
    return "axes of more than 128 columns need their projection";
  return small ? mixture_small(params, queue) : mixture_large(params, queue);
}

}  // namespace headstart::cuda
