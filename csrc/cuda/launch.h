// How every kernel is started: nothing for no work, a bounded grid (kernels stride over the rest), the error's text.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "../kernels.h"

namespace headstart::cuda {

constexpr int kThreads = 256;
// Blocks a multiprocessor is given at most: several waves, so that a last, partly filled one costs little, and few
// enough that setting up a thread is paid for by the work it strides over.
constexpr int kBlocksPerProcessor = 32;

inline std::int64_t ceil_divide(std::int64_t count, std::int64_t size) {
  return (count + size - 1) / size;
}

// Makes a device current while it lives.
class Current {
 public:
  explicit Current(int device) {
    status = cudaGetDevice(&before);
    if (status == cudaSuccess && before != device) {
      status = cudaSetDevice(device);
      moved = status == cudaSuccess;
    }
  }
  ~Current() {
    if (moved) cudaSetDevice(before);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

  cudaError_t status;

 private:
  int before = 0;
  bool moved = false;
};

// Runs `kernel(arguments...)` for `blocks` blocks of work. The grid may be smaller than that.
template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), std::int64_t blocks, int threads, Queue queue,
                   const Arguments&... arguments) {
  if (blocks <= 0) return nullptr;
  const Current current(queue.device);
  cudaError_t status = current.status;
  int processors = 0;
  if (status == cudaSuccess) {
    status = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, queue.device);
  }
  if (status == cudaSuccess) {
    const std::int64_t most = std::int64_t(processors) * kBlocksPerProcessor;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(std::min(blocks, most)));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.stream = static_cast<cudaStream_t>(queue.stream);
    status = cudaLaunchKernelEx(&config, kernel, arguments...);
  }
  if (status == cudaSuccess) return nullptr;
  cudaGetLastError();  // the error is reported here once, not again by whoever asks next
  return cudaGetErrorString(status);
}

}  // namespace headstart::cuda
