// What a torch tensor says of itself, asked through its Python attributes: the extension does not link torch.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "../kernels.h"

namespace headstart::binding {

// Learned from headstart.ops at import: torch.Tensor, torch.strided, the dtypes in the order of `Type`, and the
// function that gives torch's current stream of a device.
void learn(pybind11::object tensor, pybind11::object strided, pybind11::tuple dtypes, pybind11::object stream);

struct View {
  void* data;
  Type type;
};

// What the tensors of one call have in common.
class Common {
 public:
  // False: `tensor` is not an ordinary dense tensor with elements, on the CPU or a CUDA device.
  bool from(PyObject* tensor);

  // False: `tensor` is not a contiguous torch.Tensor of the common shape and device without gradient, whose memory
  // holds its values. Nothing need be wrong with it for that; it takes the way through Python, with its full checks.
  bool view(PyObject* tensor, View* view) const;

  std::int64_t rows() const { return rows_; }
  std::int64_t elements() const { return elements_; }
  int device() const { return device_; }  // -1: CPU
  void* stream() const;

 private:
  pybind11::object shape_;
  std::int64_t rows_ = 1, elements_ = 1;
  int device_ = -1;
};

}  // namespace headstart::binding
