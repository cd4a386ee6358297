// One thread, one sample.
#include "../kernels.h"
#include "launch.h"

namespace headstart::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) uniform_rows(const UniformParams p) {
  const std::int64_t stride = std::int64_t(gridDim.x) * blockDim.x;
  for (std::int64_t row = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; row < p.rows; row += stride)
    p.out[row] = uniform53(words_at(p.address, std::uint32_t(row), 0));
}

}  // namespace

const char* uniform(const UniformParams& params, Queue queue) {
  return launch(uniform_rows, ceil_divide(params.rows, kThreads), kThreads, queue, params);
}

}  // namespace headstart::cuda
