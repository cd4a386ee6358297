#include "tensor.h"

namespace py = pybind11;

namespace headstart::binding {
namespace {

struct Torch {
  py::object tensor, strided, stream;
  py::tuple dtypes;
  py::object is_cpu = name("is_cpu"), is_cuda = name("is_cuda"), shape = name("shape"), layout = name("layout"),
             requires_grad = name("requires_grad"), dtype = name("dtype"), is_contiguous = name("is_contiguous"),
             data_ptr = name("data_ptr"), get_device = name("get_device");

  static py::object name(const char* text) {
    return py::reinterpret_steal<py::object>(PyUnicode_InternFromString(text));
  }
};

Torch* torch = nullptr;  // for the life of the process

py::object attribute(PyObject* tensor, const py::object& name) {
  PyObject* value = PyObject_GetAttr(tensor, name.ptr());
  if (value == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(value);
}

py::object call(PyObject* tensor, const py::object& method) {
  PyObject* value = PyObject_CallMethodNoArgs(tensor, method.ptr());
  if (value == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(value);
}

bool is_true(const py::object& value) {
  return value.ptr() == Py_True;
}

int device_of(PyObject* tensor) {
  return is_true(attribute(tensor, torch->is_cpu)) ? -1 : py::cast<int>(call(tensor, torch->get_device));
}

}  // namespace

void learn(py::object tensor, py::object strided, py::tuple dtypes, py::object stream) {
  delete torch;
  torch = new Torch{std::move(tensor), std::move(strided), std::move(stream), std::move(dtypes)};
}

bool Common::from(PyObject* tensor) {
  if (torch == nullptr || reinterpret_cast<PyObject*>(Py_TYPE(tensor)) != torch->tensor.ptr()) return false;
  if (!is_true(attribute(tensor, torch->is_cpu)) && !is_true(attribute(tensor, torch->is_cuda))) return false;
  device_ = device_of(tensor);
  shape_ = attribute(tensor, torch->shape);
  const Py_ssize_t dimensions = PyTuple_GET_SIZE(shape_.ptr());
  for (Py_ssize_t i = 0; i < dimensions; ++i) {
    const std::int64_t size = PyLong_AsLongLong(PyTuple_GET_ITEM(shape_.ptr(), i));
    if (i == 0) rows_ = size;
    elements_ *= size;
  }
  return dimensions > 0 && elements_ > 0;
}

bool Common::view(PyObject* tensor, View* view) const {
  if (reinterpret_cast<PyObject*>(Py_TYPE(tensor)) != torch->tensor.ptr()) return false;
  if (attribute(tensor, torch->layout).ptr() != torch->strided.ptr()) return false;
  if (is_true(attribute(tensor, torch->is_cpu)) != (device_ < 0) || device_of(tensor) != device_) return false;
  if (PyObject_RichCompareBool(attribute(tensor, torch->shape).ptr(), shape_.ptr(), Py_EQ) != 1) return false;
  if (!is_true(call(tensor, torch->is_contiguous)) || is_true(attribute(tensor, torch->requires_grad))) return false;
  const py::object dtype = attribute(tensor, torch->dtype);
  for (Py_ssize_t i = 0; i < 4; ++i) {
    if (dtype.ptr() != PyTuple_GET_ITEM(torch->dtypes.ptr(), i)) continue;
    *view = {PyLong_AsVoidPtr(call(tensor, torch->data_ptr).ptr()), static_cast<Type>(i)};
    return true;
  }
  return false;
}

void* Common::stream() const {
  return device_ < 0 ? nullptr : PyLong_AsVoidPtr(torch->stream(device_).ptr());
}

}  // namespace headstart::binding
