// Stands in for the CUDA header of this name, so that csrc/cuda/*.cu compile unchanged as plain C++ and their kernels
// run on the host. Blocks run one after another; the threads of a block are fibers on one system thread, switched at
// barriers and shuffles, in rising or falling order: results that differ between the two betray a missing barrier.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#define __global__
#define __host__
#define __device__
#define __forceinline__ inline
#define __shared__ static  // one block at a time: one copy is enough
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
using cudaStream_t = struct CUstream_st*;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) {
  return cudaSuccess;
}
// One processor: small grids, so that kernels have to stride.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t) {
  return "invalid configuration argument";
}

namespace cuda_shim {

// Runs `body` in every thread of every block.
void run(dim3 grid, dim3 block, const std::function<void()>& body);
void wait_for_block();
void wait_for_warp();
// Where this thread of the warp leaves 8 bytes for the others; `turn` alternates between two sets.
std::uint64_t& slot(unsigned lane, unsigned turn);
unsigned next_turn();

}  // namespace cuda_shim

inline void __syncthreads() {
  cuda_shim::wait_for_block();
}
inline void __syncwarp() {
  cuda_shim::wait_for_warp();
}

template <class T>
T __shfl_sync(unsigned, T value, int from) {
  const unsigned turn = cuda_shim::next_turn();
  __builtin_memcpy(&cuda_shim::slot(threadIdx.x % 32, turn), &value, sizeof value);
  cuda_shim::wait_for_warp();
  __builtin_memcpy(&value, &cuda_shim::slot(unsigned(from) % 32, turn), sizeof value);
  return value;
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  return __shfl_sync(mask, value, int(threadIdx.x % 32) ^ lanes);
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  if (config->gridDim.x == 0 || config->blockDim.x == 0 || config->blockDim.x > 1024)
    return cudaErrorInvalidConfiguration;
  cuda_shim::run(config->gridDim, config->blockDim, [&] { kernel(arguments...); });
  return cudaSuccess;
}
