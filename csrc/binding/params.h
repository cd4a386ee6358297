// The structs of kernels.h as Python classes, made from keyword arguments: every field by its name, addresses as
// integers, 0 for null. A field that is not given is zero; a name that no field has raises TypeError.
#pragma once

#include <pybind11/pybind11.h>

namespace headstart::binding {

void name_params(pybind11::module_& module);

}  // namespace headstart::binding
