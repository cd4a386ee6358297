// Chooses the kernel: fused for samples of few elements, by rows otherwise.
#include "mixture.h"

namespace headstart::cuda {

const char* mixture(const MixtureParams& params, void* stream) {
  const bool small = params.projection == nullptr && params.columns <= kSmallColumns;
  if (!small && params.axes != nullptr && params.projection == nullptr)
    return "axes of more than 128 columns need their projection";
  return small ? mixture_small(params, stream) : mixture_large(params, stream);
}

}  // namespace headstart::cuda
