// The affine row, called at every solver step: plain tensors go straight to the kernel, in about the time that one
// torch call takes. Whatever is not plain is left to headstart.ops, which checks, explains and arranges.
#include "affine.h"

#include <stdexcept>

#include "place.h"
#include "tensor.h"

namespace py = pybind11;

namespace headstart::binding {
namespace {

struct Span {
  std::uintptr_t begin, end;
  std::int64_t size;  // of an element
};

// Null spans nothing.
Span span(const void* data, Type type, std::int64_t elements) {
  const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(data);
  const std::int64_t size = size_of(type);
  return {begin, begin + static_cast<std::uintptr_t>(data != nullptr ? elements * size : 0), size};
}

bool overlap(const Span& a, const Span& b) {
  return a.begin < b.end && b.begin < a.end;
}

// Whether `out` shares memory with `in` other than element for element.
bool tangled(const Span& out, const Span& in) {
  return overlap(out, in) && !(out.begin == in.begin && out.size == in.size);
}

// Whether `out` is tangled with an input.
bool tangled(const Span& out, const AffineParams& p, std::int64_t elements) {
  bool any = tangled(out, span(p.x, p.type, elements));
  for (int j = 0; j < p.inputs; ++j) any = any || tangled(out, span(p.y[j], p.y_type[j], elements));
  return any;
}

double real(PyObject* number) {
  const double value = PyFloat_AsDouble(number);
  if (value == -1.0 && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

// An integer in [0, 2^bits); false for all else.
bool word(PyObject* number, int bits, std::uint64_t* value) {
  if (!PyLong_Check(number) || PyBool_Check(number)) return false;  // Stream is an IntEnum
  *value = PyLong_AsUnsignedLongLong(number);
  if (*value == static_cast<std::uint64_t>(-1) && PyErr_Occurred()) {
    PyErr_Clear();
    return false;
  }
  return bits == 64 || *value >> bits == 0;
}

// headstart.ops.Noise, without an origin.
bool read_noise(PyObject* noise, AffineParams* p) {
  if (noise == Py_None) return true;
  if (!PyTuple_Check(noise) || PyTuple_GET_SIZE(noise) != 6 || PyTuple_GET_ITEM(noise, 5) != Py_None) return false;
  std::uint64_t step, offset, stream;
  if (!word(PyTuple_GET_ITEM(noise, 1), 64, &p->address.seed) || !word(PyTuple_GET_ITEM(noise, 2), 32, &step) ||
      !word(PyTuple_GET_ITEM(noise, 3), 32, &offset) || !word(PyTuple_GET_ITEM(noise, 4), 32, &stream))
    return false;
  p->noise_scale = real(PyTuple_GET_ITEM(noise, 0));
  p->address.step = static_cast<std::uint32_t>(step), p->address.offset = static_cast<std::uint32_t>(offset);
  p->address.stream = static_cast<std::uint32_t>(stream);
  return offset + static_cast<std::uint64_t>(p->rows) <= std::uint64_t(1) << 32 && p->columns <= std::int64_t(1) << 34;
}

bool read_terms(PyObject* terms, const Common& common, AffineParams* p) {
  if (!PyList_CheckExact(terms) && !PyTuple_CheckExact(terms)) return false;
  const Py_ssize_t count = PySequence_Fast_GET_SIZE(terms);
  if (count > kInputs) return false;
  for (Py_ssize_t j = 0; j < count; ++j) {
    PyObject* term = PySequence_Fast_GET_ITEM(terms, j);
    View y;
    if (!PyTuple_CheckExact(term) || PyTuple_GET_SIZE(term) != 2) return false;
    if (!common.view(PyTuple_GET_ITEM(term, 1), &y)) return false;
    p->b[j] = real(PyTuple_GET_ITEM(term, 0)), p->y[j] = y.data, p->y_type[j] = y.type;
  }
  p->inputs = static_cast<int>(count);
  return true;
}

}  // namespace

Overlap find_overlap(const AffineParams& p) {
  const std::int64_t n = p.rows * p.columns;
  const Span out = span(p.out, p.type, n), scaled = span(p.out_scaled, p.out_scaled_type, n);
  if (tangled(out, p, n)) return {"out", "an input"};
  if (tangled(scaled, p, n)) return {p.out != nullptr ? "out_scaled" : "out", "an input"};
  if (overlap(out, scaled)) return {"out_scaled", "out"};
  return {nullptr, nullptr};
}

bool run_plain_affine(py::handle x, double a, py::handle terms, py::handle noise, py::handle out, py::handle scaled,
                      double scale, int threads) {
  Common common;
  if (!common.from(out.is_none() ? scaled.ptr() : out.ptr())) return false;
  AffineParams p{};
  p.rows = common.rows(), p.columns = common.elements() / common.rows(), p.a = a, p.scale = scale;
  View state{nullptr, Type::f32}, result{nullptr, Type::f32}, second{nullptr, Type::f32};
  if (!x.is_none() && !common.view(x.ptr(), &state)) return false;
  if (!out.is_none() && !common.view(out.ptr(), &result)) return false;
  if (!scaled.is_none() && !common.view(scaled.ptr(), &second)) return false;
  p.type = x.is_none() ? result.type : state.type;
  if (p.type > Type::f64 || (!out.is_none() && result.type != p.type)) return false;
  p.x = state.data, p.out = result.data, p.out_scaled = second.data, p.out_scaled_type = second.type;
  if (!read_terms(terms.ptr(), common, &p) || !read_noise(noise.ptr(), &p)) return false;
  if (find_overlap(p).output != nullptr) return false;
  run(p, {common.device(), threads, common.stream()}, cpu::affine, cuda::affine);
  return true;
}

}  // namespace headstart::binding
