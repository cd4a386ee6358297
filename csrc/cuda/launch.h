// How every kernel is started: nothing for no work, a bounded grid (kernels stride over the rest), the error's text.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

namespace headstart::cuda {

constexpr int kThreads = 256;
// Blocks a multiprocessor is given at most: several waves, so that a last, partly filled one costs little, and few
// enough that setting up a thread is paid for by the work it strides over.
constexpr int kBlocksPerProcessor = 32;

inline std::int64_t ceil_divide(std::int64_t count, std::int64_t size) {
  return (count + size - 1) / size;
}

// Runs `kernel(arguments...)` for `blocks` blocks of work on the current device. The grid may be smaller than that.
template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), std::int64_t blocks, int threads, void* stream,
                   const Arguments&... arguments) {
  if (blocks <= 0) return nullptr;
  int device = 0, processors = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess) {
    status = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  }
  if (status == cudaSuccess) {
    const std::int64_t most = std::int64_t(processors) * kBlocksPerProcessor;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(std::min(blocks, most)));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.stream = static_cast<cudaStream_t>(stream);
    status = cudaLaunchKernelEx(&config, kernel, arguments...);
  }
  if (status == cudaSuccess) return nullptr;
  cudaGetLastError();  // the error is reported here once, not again by whoever asks next
  return cudaGetErrorString(status);
}

}  // namespace headstart::cuda
