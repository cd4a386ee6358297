// C entry points for the tests: the launchers of csrc/cuda, and the same rows as plain loops over csrc/math, which the
// kernels must equal bit for bit.
#include "../../../csrc/cuda/division.h"
#include "../../../csrc/kernels.h"
#include "../../../csrc/math/affine.h"
#include "../../../csrc/math/normal.h"

namespace headstart {
namespace {

float normal_of(const Address& address, std::int64_t row, std::int64_t element) {
  const Normals normals =
      normals_at(settled(address), static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(element / 4));
  return normals.z[element % 4];
}

template <class T>
T read(const void* from, Type type, std::int64_t at) {
  switch (type) {
    case Type::f32:
      return widen<T>(static_cast<const float*>(from)[at]);
    case Type::f64:
      return widen<T>(static_cast<const double*>(from)[at]);
    case Type::f16:
      return widen<T>(static_cast<const Half*>(from)[at]);
    default:
      return widen<T>(static_cast<const BFloat16*>(from)[at]);
  }
}

template <class T>
void write(void* to, Type type, std::int64_t at, T value) {
  switch (type) {
    case Type::f32:
      return narrow(value, static_cast<float*>(to) + at);
    case Type::f64:
      return narrow(value, static_cast<double*>(to) + at);
    case Type::f16:
      return narrow(value, static_cast<Half*>(to) + at);
    default:
      return narrow(value, static_cast<BFloat16*>(to) + at);
  }
}

template <class T>
void affine_rows(const AffineParams& p) {
  for (std::int64_t at = 0; at < p.rows * p.columns; ++at) {
    T sum = p.x != nullptr ? first_term(T(p.a), static_cast<const T*>(p.x)[at]) : T(0);
    for (int j = 0; j < p.inputs; ++j) sum = add_term(sum, T(p.b[j]), read<T>(p.y[j], p.y_type[j], at));
    if (p.noise_scale != 0) sum = add_term(sum, T(p.noise_scale), normal_of(p.address, at / p.columns, at % p.columns));
    if (p.out != nullptr) static_cast<T*>(p.out)[at] = sum;
    if (p.out_scaled != nullptr) write(p.out_scaled, p.out_scaled_type, at, T(p.scale) * sum);
  }
}

template <class T>
void sample_rows(const MixtureSampleParams& p) {
  const T *mean = static_cast<const T*>(p.mean), *deviation = static_cast<const T*>(p.deviation);
  const T *axes = static_cast<const T*>(p.axes), *factor = static_cast<const T*>(p.factor);
  for (std::int64_t row = 0; row < p.rows; ++row)
    for (std::int64_t d = 0; d < p.columns; ++d) {
      const std::int64_t k = p.component[row];
      const T scale = deviation[k * p.variance_columns + (p.variance_columns == 1 ? 0 : d)];
      T sum = fma_rn(scale, T(normal_of(p.floor, row, d)), mean[k * p.columns + d]);
      for (std::int64_t r = 0; r < p.rank; ++r)
        sum =
            fma_rn(factor[k * p.rank + r] * T(normal_of(p.along, row, r)), axes[(k * p.rank + r) * p.columns + d], sum);
      static_cast<T*>(p.out)[row * p.columns + d] = sum;
    }
}

}  // namespace
}  // namespace headstart

using namespace headstart;

extern "C" {

std::int64_t shim_size(int which) {
  const std::int64_t sizes[] = {sizeof(AffineParams), sizeof(MixtureParams), sizeof(MixtureSampleParams),
                                sizeof(UniformParams)};
  return sizes[which];
}

const char* shim_affine(const AffineParams* p) {
  return cuda::affine(*p, cuda::Queue{});
}
const char* shim_mixture(const MixtureParams* p) {
  return cuda::mixture(*p, cuda::Queue{});
}
const char* shim_mixture_sample(const MixtureSampleParams* p) {
  return cuda::mixture_sample(*p, cuda::Queue{});
}
const char* shim_uniform(const UniformParams* p) {
  return cuda::uniform(*p, cuda::Queue{});
}

std::uint64_t shim_divide(std::uint64_t dividend, std::uint64_t divisor, std::uint64_t limit) {
  return cuda::divide(dividend, cuda::division(divisor, limit));
}

const char* loop_affine(const AffineParams* p) {
  p->type == Type::f64 ? affine_rows<double>(*p) : affine_rows<float>(*p);
  return nullptr;
}
const char* loop_mixture_sample(const MixtureSampleParams* p) {
  p->type == Type::f64 ? sample_rows<double>(*p) : sample_rows<float>(*p);
  return nullptr;
}

}  // extern "C"
