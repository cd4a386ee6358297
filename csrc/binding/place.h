// Where an op runs, and running it there.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>

#include "../kernels.h"

namespace headstart::binding {

// The CPU, on `threads` threads, or the queue of a CUDA device.
struct Place {
  int device;  // -1: the CPU
  int threads;
  void* stream;
};

template <class Params>
void run(const Params& params, const Place& place, void (*on_cpu)(const Params&, int),
         const char* (*on_cuda)(const Params&, cuda::Queue)) {
  const pybind11::gil_scoped_release release;
  if (place.device < 0) return on_cpu(params, place.threads);
  if (const char* error = on_cuda(params, {place.device, place.stream})) throw std::runtime_error(error);
}

}  // namespace headstart::binding
