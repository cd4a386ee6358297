// pybind11 module `_core`: unpacks addresses and sizes, picks the device, names the arguments. No math and no checks:
// headstart.ops makes them first.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <tuple>
#include <vector>

#include "../cpu/parallel.h"
#include "../kernels.h"

namespace py = pybind11;
using namespace headstart;

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

// Where to run: the CPU, on `threads` threads, or the queue of a CUDA device.
struct Place {
  int device;  // -1: the CPU
  int threads;
  Pointer stream;
};

template <class Params>
void run(const Params& params, const Place& place, void (*on_cpu)(const Params&, int),
         const char* (*on_cuda)(const Params&, cuda::Queue)) {
  const py::gil_scoped_release release;
  if (place.device < 0) return on_cpu(params, place.threads);
  if (const char* error = on_cuda(params, {place.device, out(place.stream)})) throw std::runtime_error(error);
}

// Positional arguments, read in order: a call at every solver step, so it pays to pass plain numbers only.
class Reader {
 public:
  explicit Reader(const py::args& arguments) : arguments(arguments) {}

  template <class Integer>
  Integer integer() {
    return next().cast<Integer>();
  }
  double real() { return PyFloat_AsDouble(next().ptr()); }
  void* pointer() { return out(integer<Pointer>()); }
  Type type() { return static_cast<Type>(integer<int>()); }
  Place place() { return {integer<int>(), integer<int>(), integer<Pointer>()}; }
  bool more() const { return at < arguments.size(); }

 private:
  py::handle next() { return PyTuple_GET_ITEM(arguments.ptr(), static_cast<Py_ssize_t>(at++)); }

  const py::args& arguments;
  std::size_t at = 0;
};

void affine(const py::args& arguments) {
  Reader reader(arguments);
  const Place place = reader.place();
  AffineParams params{};
  params.rows = reader.integer<std::int64_t>(), params.columns = reader.integer<std::int64_t>();
  params.type = reader.type(), params.x = reader.pointer(), params.a = reader.real();
  params.out = reader.pointer(), params.out_scaled = reader.pointer(), params.out_scaled_type = reader.type();
  params.scale = reader.real(), params.noise_scale = reader.real();
  Address& address = params.address;
  address.seed = reader.integer<std::uint64_t>(), address.offset = reader.integer<std::uint32_t>();
  address.step = reader.integer<std::uint32_t>(), address.stream = reader.integer<std::uint32_t>();
  address.origin = static_cast<const std::uint64_t*>(reader.pointer());
  for (; reader.more(); ++params.inputs) {
    params.b[params.inputs] = reader.real(), params.y[params.inputs] = reader.pointer();
    params.y_type[params.inputs] = reader.type();
  }
  run(params, place, cpu::affine, cuda::affine);
}

struct Sizes {
  std::int64_t rows, components, columns, rank, variance_columns;
};

void mixture(const Place& place, const Sizes& sizes, int type, Pointer x, Pointer mean, Pointer precision, Pointer keep,
             Pointer axes, Pointer drop, Pointer gain, Pointer log_constant, std::int64_t log_constant_stride,
             Pointer projection, Pointer log_prob, Pointer responsibility, Pointer denoised, Pointer coefficient) {
  const MixtureParams params{sizes.rows,
                             sizes.components,
                             sizes.columns,
                             sizes.rank,
                             static_cast<Type>(type),
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
                                   static_cast<Type>(type),
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

std::vector<std::uint32_t> philox(const std::vector<std::uint32_t>& counter, const std::vector<std::uint32_t>& key) {
  const Words w = philox4x32({counter.at(0), counter.at(1), counter.at(2), counter.at(3)}, key.at(0), key.at(1));
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
      .def(py::init<int, int, Pointer>(), py::arg("device"), py::arg("threads"), py::arg("stream"));
  py::class_<Sizes>(module, "Sizes")
      .def(py::init<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>(), py::arg("rows"),
           py::arg("components"), py::arg("columns"), py::arg("rank"), py::arg("variance_columns"));
  module.def("affine", affine);
  module.def("mixture", mixture);
  module.def("mixture_sample", mixture_sample);
  module.def("uniform", uniform);
  module.def("philox", philox, "Philox4x32-10 words of a counter (4 words) and a key (2 words)");
  module.def("set_openmp", set_openmp);
  module.def("isa", cpu::isa, "vector instruction set in use");
  module.def("set_isa", cpu::set_isa, "use another vector instruction set; False: this machine does not have it");
  module.def("build_info", build_info);
}
