// pybind11 module `_core`: unpacks addresses and sizes, picks the device, names the arguments. No math, and no checks:
// headstart.ops makes them first (affine.cpp has the quick way for tensors that need none).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>
#include <vector>

#include "../cpu/parallel.h"
#include "affine.h"
#include "place.h"
#include "tensor.h"

namespace py = pybind11;
using namespace headstart;
using binding::Place;

namespace {

using Pointer = std::uintptr_t;
using AddressArgument = std::tuple<std::uint64_t, std::uint32_t, std::uint32_t, std::uint32_t>;

const void* in(Pointer pointer) {
  return reinterpret_cast<const void*>(pointer);
}
void* out(Pointer pointer) {
  return reinterpret_cast<void*>(pointer);
}

Address address(const AddressArgument& a) {
  return {std::get<0>(a), std::get<1>(a), std::get<2>(a), std::get<3>(a), nullptr};
}

Type type_of(int code) {
  return static_cast<Type>(code);
}

// A row on addresses that headstart.ops has checked; `terms` are triples (b, y, type of y).
void affine(const Place& place, std::int64_t rows, std::int64_t columns, int type, Pointer x, double a,
            const std::vector<std::tuple<double, Pointer, int>>& terms, double noise_scale,
            const AddressArgument& where, Pointer origin, Pointer result, Pointer scaled, int scaled_type,
            double scale) {
  AffineParams params{};
  params.rows = rows, params.columns = columns, params.type = type_of(type);
  params.x = in(x), params.a = a, params.inputs = static_cast<int>(terms.size());
  for (std::size_t j = 0; j < terms.size(); ++j) {
    params.b[j] = std::get<0>(terms[j]), params.y[j] = in(std::get<1>(terms[j]));
    params.y_type[j] = type_of(std::get<2>(terms[j]));
  }
  params.noise_scale = noise_scale, params.address = address(where);
  params.address.origin = static_cast<const std::uint64_t*>(in(origin));
  params.out = out(result), params.out_scaled = out(scaled), params.out_scaled_type = type_of(scaled_type);
  params.scale = scale;
  run(params, place, cpu::affine, cuda::affine);
}

struct Sizes {
  std::int64_t rows, components, columns, rank, variance_columns;
};

void mixture(const Place& place, const Sizes& sizes, int type, Pointer x, Pointer mean, Pointer precision, Pointer keep,
             Pointer axes, Pointer drop, Pointer gain, Pointer log_constant, std::int64_t log_constant_stride,
             Pointer projection, Pointer whitening, Pointer log_prob, Pointer responsibility, Pointer denoised,
             Pointer coefficient) {
  const MixtureParams params{sizes.rows,
                             sizes.components,
                             sizes.columns,
                             sizes.rank,
                             type_of(type),
                             in(x),
                             in(mean),
                             in(precision),
                             in(keep),
                             sizes.variance_columns,
                             in(axes),
                             in(drop),
                             in(gain),
                             in(log_constant),
                             log_constant_stride,
                             in(projection),
                             in(whitening),
                             out(log_prob),
                             out(responsibility),
                             out(denoised),
                             out(coefficient)};
  run(params, place, cpu::mixture, cuda::mixture);
}

void mixture_sample(const Place& place, const Sizes& sizes, int type, Pointer component, Pointer mean,
                    Pointer deviation, Pointer axes, Pointer factor, const AddressArgument& floor,
                    const AddressArgument& along, Pointer result) {
  const MixtureSampleParams params{sizes.rows,
                                   sizes.columns,
                                   sizes.rank,
                                   type_of(type),
                                   static_cast<const std::int64_t*>(in(component)),
                                   in(mean),
                                   in(deviation),
                                   sizes.variance_columns,
                                   in(axes),
                                   in(factor),
                                   address(floor),
                                   address(along),
                                   out(result)};
  run(params, place, cpu::mixture_sample, cuda::mixture_sample);
}

void uniform(const Place& place, std::int64_t rows, const AddressArgument& where, Pointer result) {
  const UniformParams params{rows, address(where), static_cast<double*>(out(result))};
  run(params, place, cpu::uniform, cuda::uniform);
}

void words(int threads, std::int64_t seeds, std::int64_t rows, std::int64_t groups, const AddressArgument& where,
           Pointer result) {
  const WordsParams params{seeds, rows, groups, address(where), static_cast<std::uint32_t*>(out(result))};
  const py::gil_scoped_release release;
  cpu::words(params, threads);
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
  return info;
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  py::class_<Place>(module, "Place")
      .def(py::init([](int device, int threads, Pointer stream) { return Place{device, threads, out(stream)}; }),
           py::arg("device"), py::arg("threads"), py::arg("stream"));
  py::class_<Sizes>(module, "Sizes")
      .def(py::init<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>(), py::arg("rows"),
           py::arg("components"), py::arg("columns"), py::arg("rank"), py::arg("variance_columns"));
  module.def("learn", binding::learn, "what of torch the module asks for, see csrc/binding/tensor.h");
  module.def("affine", affine);
  module.def("run_plain_affine", binding::run_plain_affine);
  module.def("mixture", mixture);
  module.def("mixture_sample", mixture_sample);
  module.def("uniform", uniform);
  module.def("words", words, "raw words of consecutive seeds, on the CPU");
  module.def("philox", philox, "Philox4x32-10 words of a counter (4 words) and a key (2 words)");
  module.def("set_openmp", set_openmp);
  module.def("isa", cpu::isa, "vector instruction set in use");
  module.def("set_isa", cpu::set_isa, "use another vector instruction set; False: this machine does not have it");
  module.def("build_info", build_info);
}
