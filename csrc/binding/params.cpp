#include "params.h"

#include <pybind11/stl.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../kernels.h"

namespace py = pybind11;

namespace headstart::binding {
namespace {

// A class in the making. Its objects are filled when they are made, and read-only after.
template <class Params>
class Named {
 public:
  Named(py::module_& module, const char* name) : python(module, name), setters(std::make_shared<Setters>()) {
    python.def(py::init([name, setters = setters](const py::kwargs& fields) {
      Params params{};
      for (const auto& [field, value] : fields) find(*setters, name, field.ptr())(params, value);
      return params;
    }));
  }

  template <class Value>
  Named& field(const char* name, Value Params::* member) {
    return add(
        name, [member](const Params& params) { return params.*member; },
        [member](Params& params, py::handle value) { params.*member = value.cast<Value>(); });
  }

  template <class Target>
  Named& field(const char* name, Target* Params::* member) {
    return add(
        name, [member](const Params& params) { return reinterpret_cast<std::uintptr_t>(params.*member); },
        [member](Params& params, py::handle value) {
          params.*member = reinterpret_cast<Target*>(value.cast<std::uintptr_t>());
        });
  }

  Named& field(const char* name, Type Params::* member) {
    return add(
        name, [member](const Params& params) { return static_cast<int>(params.*member); },
        [member](Params& params, py::handle value) { params.*member = static_cast<Type>(value.cast<int>()); });
  }

  template <class Get, class Set>
  Named& add(const char* name, const Get& get, const Set& set) {
    python.def_property_readonly(name, get);
    setters->emplace_back(PyUnicode_InternFromString(name), set);  // the name lives as long as the class
    return *this;
  }

 private:
  using Set = std::function<void(Params&, py::handle)>;
  using Setters = std::vector<std::pair<PyObject*, Set>>;

  static const Set& find(const Setters& setters, const char* name, PyObject* field) {
    for (const auto& [own, set] : setters)
      if (own == field) return set;  // names in calls are interned
    for (const auto& [own, set] : setters)
      if (PyUnicode_Compare(own, field) == 0) return set;
    throw py::type_error(std::string(name) + " has no field " + py::str(py::handle(field)).cast<std::string>());
  }

  py::class_<Params> python;
  std::shared_ptr<Setters> setters;
};

using Term = std::tuple<double, std::uintptr_t, int>;  // b, y, type of y

std::vector<Term> terms_of(const AffineParams& params) {
  std::vector<Term> terms;
  for (int j = 0; j < params.inputs; ++j)
    terms.emplace_back(params.b[j], reinterpret_cast<std::uintptr_t>(params.y[j]), static_cast<int>(params.y_type[j]));
  return terms;
}

void set_terms(AffineParams& params, py::handle value) {
  const auto terms = value.cast<std::vector<Term>>();
  if (terms.size() > kInputs) throw std::length_error("more terms than kInputs");  // they would not fit
  params.inputs = static_cast<int>(terms.size());
  for (std::size_t j = 0; j < terms.size(); ++j) {
    params.b[j] = std::get<0>(terms[j]);
    params.y[j] = reinterpret_cast<const void*>(std::get<1>(terms[j]));
    params.y_type[j] = static_cast<Type>(std::get<2>(terms[j]));
  }
}

void name_affine(py::module_& module) {
  using P = AffineParams;
  Named<P> named(module, "AffineParams");
  named.field("rows", &P::rows).field("columns", &P::columns).field("type", &P::type);
  named.field("x", &P::x).field("a", &P::a).field("noise_scale", &P::noise_scale).field("address", &P::address);
  named.field("out", &P::out).field("out_scaled", &P::out_scaled).field("out_scaled_type", &P::out_scaled_type);
  named.field("scale", &P::scale);
  named.add("terms", terms_of, set_terms);
}

void name_mixture(py::module_& module) {
  using P = MixtureParams;
  Named<P> named(module, "MixtureParams");
  named.field("rows", &P::rows).field("components", &P::components).field("columns", &P::columns);
  named.field("rank", &P::rank).field("type", &P::type).field("x", &P::x).field("mean", &P::mean);
  named.field("precision", &P::precision).field("keep", &P::keep).field("variance_columns", &P::variance_columns);
  named.field("axes", &P::axes).field("drop", &P::drop).field("gain", &P::gain);
  named.field("log_constant", &P::log_constant).field("log_constant_stride", &P::log_constant_stride);
  named.field("projection", &P::projection).field("whitening", &P::whitening).field("log_prob", &P::log_prob);
  named.field("responsibility", &P::responsibility).field("denoised", &P::denoised);
  named.field("coefficient", &P::coefficient);
}

void name_mixture_sample(py::module_& module) {
  using P = MixtureSampleParams;
  Named<P> named(module, "MixtureSampleParams");
  named.field("rows", &P::rows).field("columns", &P::columns).field("rank", &P::rank).field("type", &P::type);
  named.field("component", &P::component).field("mean", &P::mean).field("deviation", &P::deviation);
  named.field("variance_columns", &P::variance_columns).field("axes", &P::axes).field("factor", &P::factor);
  named.field("floor", &P::floor).field("along", &P::along).field("out", &P::out);
}

}  // namespace

void name_params(py::module_& module) {
  using A = Address;
  Named<A> address(module, "Address");
  address.field("seed", &A::seed).field("offset", &A::offset).field("step", &A::step).field("stream", &A::stream);
  address.field("origin", &A::origin);
  name_affine(module);
  name_mixture(module);
  name_mixture_sample(module);
  using U = UniformParams;
  Named<U> uniform(module, "UniformParams");
  uniform.field("rows", &U::rows).field("address", &U::address).field("out", &U::out);
  using W = WordsParams;
  Named<W> words(module, "WordsParams");
  words.field("seeds", &W::seeds).field("rows", &W::rows).field("groups", &W::groups);
  words.field("address", &W::address).field("out", &W::out);
}

}  // namespace headstart::binding
