// Stands in for the CUDA kernels in a build without nvcc.
#include "../kernels.h"

namespace headstart::cuda {
namespace {

constexpr const char* kAbsent = "this build of headstart has no CUDA kernels; reinstall it where nvcc is found";

}  // namespace

const char* affine(const AffineParams&, Queue) {
  return kAbsent;
}
const char* mixture(const MixtureParams&, Queue) {
  return kAbsent;
}
const char* mixture_sample(const MixtureSampleParams&, Queue) {
  return kAbsent;
}
const char* uniform(const UniformParams&, Queue) {
  return kAbsent;
}

}  // namespace headstart::cuda
