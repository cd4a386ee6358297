// pybind11 module `_core`: the functions of kernels.h on its structs (params.cpp names their fields). No math, and no
// checks: headstart.ops makes them first (affine.cpp has the quick way for tensors that need none).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "../cpu/parallel.h"
#include "affine.h"
#include "params.h"
#include "place.h"
#include "tensor.h"

namespace py = pybind11;
using namespace headstart;
using binding::Place;

namespace {

using Pointer = std::uintptr_t;

// An op on a place, as Python calls it.
template <class Params>
auto op(void (*on_cpu)(const Params&, int), const char* (*on_cuda)(const Params&, cuda::Queue)) {
  return [=](const Place& place, const Params& params) { run(params, place, on_cpu, on_cuda); };
}

py::object find_overlap(const AffineParams& params) {
  const binding::Overlap found = binding::find_overlap(params);
  if (found.output == nullptr) return py::none();
  return py::make_tuple(found.output, found.other);
}

std::vector<std::uint32_t> philox(const std::vector<std::uint32_t>& counter, const std::vector<std::uint32_t>& key) {
  const Words w = philox4x32(Words{counter.at(0), counter.at(1), counter.at(2), counter.at(3)}, key.at(0), key.at(1));
  return {w.w0, w.w1, w.w2, w.w3};
}

void set_openmp(Pointer parallel, Pointer thread, Pointer team) {
  cpu::set_openmp({reinterpret_cast<void (*)(void (*)(void*), void*, unsigned, unsigned)>(parallel),
                   reinterpret_cast<int (*)()>(thread), reinterpret_cast<int (*)()>(team)});
}

py::dict build_info() {
  py::dict info;
  info["compiler"] = HEADSTART_COMPILER;
  info["cuda_version"] = HEADSTART_CUDA_VERSION;
  info["architectures"] = HEADSTART_ARCHITECTURES;
  info["cuda"] = HEADSTART_CUDA_VERSION[0] != 0;
#if defined(__SANITIZE_ADDRESS__)
  info["sanitized"] = true;
#else
  info["sanitized"] = false;
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  py::class_<Place>(module, "Place")
      .def(py::init([](int device, int threads, Pointer stream) {
             return Place{device, threads, reinterpret_cast<void*>(stream)};
           }),
           py::arg("device"), py::arg("threads"), py::arg("stream"));
  binding::name_params(module);
  module.attr("FUSED_COLUMNS") = kFusedColumns;
  module.def("learn", binding::learn, "what of torch the module asks for, see csrc/binding/tensor.h");
  module.def("affine", op(cpu::affine, cuda::affine));
  module.def("find_overlap", find_overlap,
             "output and other of an affine row that share memory they must not, or None");
  module.def("run_plain_affine", binding::run_plain_affine);
  module.def("mixture", op(cpu::mixture, cuda::mixture));
  module.def("mixture_sample", op(cpu::mixture_sample, cuda::mixture_sample));
  module.def("uniform", op(cpu::uniform, cuda::uniform));
  module.def("words", cpu::words, py::call_guard<py::gil_scoped_release>(),
             "raw words of consecutive seeds, on the CPU");
  module.def("philox", philox, "Philox4x32-10 words of a counter (4 words) and a key (2 words)");
  module.def("set_openmp", set_openmp);
  module.def("isa", cpu::isa, "vector instruction set in use");
  module.def("set_isa", cpu::set_isa, "use another vector instruction set; False: this machine does not have it");
  module.def("build_info", build_info);
}
