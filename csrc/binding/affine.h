// The quick way to the affine row, and the rule of what its outputs may share memory with.
#pragma once

#include <pybind11/pybind11.h>

#include "../kernels.h"

namespace headstart::binding {

// Runs the row of headstart.ops.affine and returns true; false: not all of its arguments are plain, nothing was done.
bool run_plain_affine(pybind11::handle x, double a, pybind11::handle terms, pybind11::handle noise,
                      pybind11::handle out, pybind11::handle scaled, double scale, int threads);

// The first output that shares memory it must not share, and with what; null: none does. An output may be an input,
// element for element; the outputs must lie apart.
struct Overlap {
  const char *output, *other;
};
Overlap find_overlap(const AffineParams& params);

}  // namespace headstart::binding
