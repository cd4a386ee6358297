#include "tensor.h"

namespace py = pybind11;

namespace headstart::binding {
namespace {

struct Torch {
  py::object tensor, strided, stream;
  py::tuple dtypes;
  py::object is_cpu = name("is_cpu"), is_cuda = name("is_cuda"), shape = name("shape"), layout = name("layout"),
             requires_grad = name("requires_grad"), dtype = name("dtype"), is_contiguous = name("is_contiguous"),
             data_ptr = name("data_ptr"), get_device = name("get_device"), is_neg = name("is_neg"),
             storage = name("untyped_storage"), nbytes = name("nbytes"), offset = name("storage_offset");

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

std::int64_t integer(const py::object& value) {
  return PyLong_AsLongLong(value.ptr());
}

// Where the elements of a contiguous tensor are; null where it has no memory for them: a lazy zero, a wrapper, storage
// that was freed or cut.
void* memory(PyObject* tensor, std::int64_t elements, std::int64_t size) {
  PyObject* address = PyObject_CallMethodNoArgs(tensor, torch->data_ptr.ptr());
  if (address == nullptr) {
    PyErr_Clear();
    return nullptr;
  }
  void* data = PyLong_AsVoidPtr(py::reinterpret_steal<py::object>(address).ptr());
  if (data == nullptr) return nullptr;
  const py::object storage = call(tensor, torch->storage);
  const std::int64_t end = (integer(call(tensor, torch->offset)) + elements) * size;
  return integer(call(storage.ptr(), torch->nbytes)) < end ? nullptr : data;
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
    *view = {memory(tensor, elements_, i < 2 ? 4 << i : 2), static_cast<Type>(i)};  // 4, 8, 2, 2 bytes
    return view->data != nullptr && !is_true(call(tensor, torch->is_neg));
  }
  return false;
}

void* Common::stream() const {
  return device_ < 0 ? nullptr : PyLong_AsVoidPtr(torch->stream(device_).ptr());
}

}  // namespace headstart::binding
