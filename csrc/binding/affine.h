#pragma once

#include <pybind11/pybind11.h>

namespace headstart::binding {

// Runs the row of headstart.ops.affine and returns true; false: not all of its arguments are plain, nothing was done.
bool run_plain_affine(pybind11::handle x, double a, pybind11::handle terms, pybind11::handle noise,
                      pybind11::handle out, pybind11::handle scaled, double scale, int threads);

}  // namespace headstart::binding
