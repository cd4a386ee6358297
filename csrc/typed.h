// The structs of kernels.h with the state's type in place of a code for it: made once a launch, read by the loops.
#pragma once

#include "kernels.h"

namespace headstart {

// x and out may be one tensor, so these pointers promise nothing of each other. Inputs and the second output keep their
// own types.
template <class T>
struct TypedAffine {
  std::int64_t rows, columns;
  const T* x;
  T a;
  int inputs;
  const void* y[kInputs];
  Type y_type[kInputs];
  T b[kInputs];
  T noise_scale;
  Address address;
  T* out;
  void* out_scaled;
  Type out_scaled_type;
  T scale;
};

template <class T>
struct TypedMixture {
  std::int64_t rows, components, columns, rank, variance_columns, log_constant_stride;
  const T* __restrict__ x, * __restrict__ mean, * __restrict__ precision, * __restrict__ keep;
  const T* __restrict__ axes, * __restrict__ drop, * __restrict__ gain, * __restrict__ log_constant;
  const T* __restrict__ projection, * __restrict__ whitening;
  T* __restrict__ log_prob, * __restrict__ responsibility, * __restrict__ denoised, * __restrict__ coefficient;
};

template <class T>
struct TypedMixtureSample {
  std::int64_t rows, columns, rank, variance_columns;
  const std::int64_t* __restrict__ component;
  const T* __restrict__ mean, * __restrict__ deviation, * __restrict__ axes, * __restrict__ factor;
  Address floor, along;
  T* __restrict__ out;
};

// Static: each instruction set must keep the copy compiled for it.

template <class T>
static inline TypedAffine<T> typed(const AffineParams& p) {
  TypedAffine<T> to{};
  to.rows = p.rows, to.columns = p.columns;
  to.x = static_cast<const T*>(p.x), to.a = T(p.a);
  to.inputs = p.inputs;
  for (int j = 0; j < p.inputs; ++j) to.y[j] = p.y[j], to.y_type[j] = p.y_type[j], to.b[j] = T(p.b[j]);
  to.noise_scale = T(p.noise_scale), to.address = p.address;
  to.out = static_cast<T*>(p.out);
  to.out_scaled = p.out_scaled, to.out_scaled_type = p.out_scaled_type, to.scale = T(p.scale);
  return to;
}

template <class T>
static inline TypedMixture<T> typed(const MixtureParams& p) {
  TypedMixture<T> to{};
  to.rows = p.rows, to.components = p.components, to.columns = p.columns, to.rank = p.rank;
  to.variance_columns = p.variance_columns, to.log_constant_stride = p.log_constant_stride;
  to.x = static_cast<const T*>(p.x);
  to.mean = static_cast<const T*>(p.mean);
  to.precision = static_cast<const T*>(p.precision);
  to.keep = static_cast<const T*>(p.keep);
  to.axes = static_cast<const T*>(p.axes);
  to.drop = static_cast<const T*>(p.drop);
  to.gain = static_cast<const T*>(p.gain);
  to.log_constant = static_cast<const T*>(p.log_constant);
  to.projection = static_cast<const T*>(p.projection);
  to.whitening = static_cast<const T*>(p.whitening);
  to.log_prob = static_cast<T*>(p.log_prob);
  to.responsibility = static_cast<T*>(p.responsibility);
  to.denoised = static_cast<T*>(p.denoised);
  to.coefficient = static_cast<T*>(p.coefficient);
  return to;
}

template <class T>
static inline TypedMixtureSample<T> typed(const MixtureSampleParams& p) {
  TypedMixtureSample<T> to{};
  to.rows = p.rows, to.columns = p.columns, to.rank = p.rank, to.variance_columns = p.variance_columns;
  to.component = p.component;
  to.mean = static_cast<const T*>(p.mean);
  to.deviation = static_cast<const T*>(p.deviation);
  to.axes = static_cast<const T*>(p.axes);
  to.factor = static_cast<const T*>(p.factor);
  to.floor = p.floor, to.along = p.along;
  to.out = static_cast<T*>(p.out);
  return to;
}

}  // namespace headstart
