// Mixture posterior of samples of any size. Vectors run along a sample; a few samples meet a few components at a time,
// so that each number read from memory serves several distances.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../math/component.h"
#include "mixture.h"
#include "parallel.h"
#include "vector.h"

namespace headstart::cpu::HEADSTART_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kTile = 4;  // samples, and components
#else
constexpr int kTile = 2;
#endif

template <class T>
Vector<T> load(const T* from) {
  Vector<T> vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

template <class T>
T sum_of(Vector<T> vector) {
  T sum = 0;
  for (int lane = 0; lane < Block<T>::lanes; ++lane) sum += vector[lane];
  return sum;
}

// sum_i weight_i y_i^2
template <class T>
T weighted_square(const T* y, const T* weight, std::int64_t count) {
  constexpr int lanes = Block<T>::lanes;
  Vector<T> sums{};
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const Vector<T> part = load(y + i);
    sums += part * part * load(weight + i);
  }
  T sum = sum_of<T>(sums);
  for (; i < count; ++i) sum += y[i] * y[i] * weight[i];
  return sum;
}

template <class T>
class Tile {
 public:
  explicit Tile(const MixtureParams& params) : p(params), joint(kTile * p.components), picked(p.components) {}

  // Samples first .. first + count - 1, count <= kTile.
  void operator()(std::int64_t first, int count) {
    for (std::int64_t k = 0; k < p.components; k += kTile) distances(first, count, k);
    for (int s = 0; s < count; ++s) {
      T* of_sample = joint.data() + s * p.components;
      for (std::int64_t k = 0; k < p.components; ++k) of_sample[k] = score(first + s, k, of_sample[k]);
      out(p.log_prob)[first + s] = normalize(of_sample);
      if (p.responsibility != nullptr)
        std::copy(of_sample, of_sample + p.components, out(p.responsibility) + (first + s) * p.components);
      if (p.coefficient != nullptr) write_coefficients(first + s, of_sample);
      if (p.denoised != nullptr) denoise(first + s, of_sample);
    }
  }

 private:
  static constexpr int lanes = Block<T>::lanes;
  const MixtureParams& p;
  std::vector<T> joint;  // [kTile, K]
  std::vector<std::int64_t> picked;

  static const T* in(const void* data) { return static_cast<const T*>(data); }
  static T* out(void* data) { return static_cast<T*>(data); }
  bool diagonal() const { return p.variance_columns != 1; }

  // sum_d precision_d (x_d - mean_d)^2 of a tile into `joint`; samples and components beyond the end repeat the last.
  void distances(std::int64_t first, int count, std::int64_t k) {
    const T *x[kTile], *mean[kTile], *precision[kTile];
    for (int i = 0; i < kTile; ++i) {
      const std::int64_t component = std::min(k + i, p.components - 1);
      x[i] = in(p.x) + (first + std::min(i, count - 1)) * p.columns;
      mean[i] = in(p.mean) + component * p.columns;
      precision[i] = in(p.precision) + component * p.variance_columns;
    }
    T sum[kTile][kTile] = {};
    diagonal() ? add_distances<true>(x, mean, precision, sum) : add_distances<false>(x, mean, precision, sum);
    for (int s = 0; s < count; ++s)
      for (int c = 0; c < kTile && k + c < p.components; ++c)
        joint[s * p.components + k + c] = diagonal() ? sum[s][c] : sum[s][c] * precision[c][0];
  }

  template <bool weighted>
  void add_distances(const T* const* x, const T* const* mean, const T* const* precision, T (&sum)[kTile][kTile]) const {
    Vector<T> sums[kTile][kTile] = {};
    std::int64_t d = 0;
    for (; d + lanes <= p.columns; d += lanes) {
      Vector<T> samples[kTile];
      for (int s = 0; s < kTile; ++s) samples[s] = load(x[s] + d);
#pragma GCC unroll 4
      for (int c = 0; c < kTile; ++c) {
        const Vector<T> center = load(mean[c] + d);
        const Vector<T> weight = weighted ? load(precision[c] + d) : Vector<T>{};
#pragma GCC unroll 4
        for (int s = 0; s < kTile; ++s) {
          const Vector<T> difference = samples[s] - center;
          sums[s][c] += weighted ? difference * weight * difference : difference * difference;
        }
      }
    }
    for (int s = 0; s < kTile; ++s)
      for (int c = 0; c < kTile; ++c) {
        sum[s][c] = sum_of<T>(sums[s][c]);
        for (std::int64_t rest = d; rest < p.columns; ++rest) {
          const T difference = x[s][rest] - mean[c][rest];
          sum[s][c] += difference * difference * (weighted ? precision[c][rest] : T(1));
        }
      }
  }

  // log weight_k + log p_k(x), given the distance
  T score(std::int64_t row, std::int64_t k, T quadratic) const {
    if (p.rank > 0) {
      const T* y = in(p.projection) + (row * p.components + k) * p.rank;
      quadratic -= weighted_square(y, in(p.drop) + k * p.rank, p.rank);
    }
    return in(p.log_constant)[row * p.log_constant_stride + k] - T(0.5) * quadratic;
  }

  // joint becomes the responsibilities; returns log p(x).
  T normalize(T* of_sample) const {
    T top = -std::numeric_limits<T>::infinity(), total = 0;
    for (std::int64_t k = 0; k < p.components; ++k) top = std::max(top, of_sample[k]);
    const T shift = std::isfinite(top) ? top : T(0);
    for (std::int64_t k = 0; k < p.components; ++k) of_sample[k] = exp_of(of_sample[k] - shift);
    for (std::int64_t k = 0; k < p.components; ++k) total += of_sample[k];
    const T divisor = total == T(0) ? T(1) : total;
    for (std::int64_t k = 0; k < p.components; ++k) of_sample[k] /= divisor;
    return shift + log_of(total);
  }

  void write_coefficients(std::int64_t row, const T* weight) const {
    const std::int64_t size = p.components * p.rank;
    T* coefficient = out(p.coefficient) + row * size;
    const T* y = in(p.projection) + row * size;
    for (std::int64_t k = 0; k < p.components; ++k)
      for (std::int64_t r = k * p.rank; r < (k + 1) * p.rank; ++r)
        coefficient[r] = weight[k] == T(0) ? T(0) : weight[k] * in(p.gain)[r] * y[r];
  }

  // sum_k weight_k (mean_k + keep_k (x - mean_k)) over the components that have any weight
  void denoise(std::int64_t row, const T* weight) {
    std::int64_t count = 0;
    for (std::int64_t k = 0; k < p.components; ++k)
      if (weight[k] != T(0)) picked[count++] = k;  // NaN too: it must show
    const T* x = in(p.x) + row * p.columns;
    T* denoised = out(p.denoised) + row * p.columns;
    std::int64_t d = 0;
    for (; d + lanes <= p.columns; d += lanes) {
      const Vector<T> sample = load(x + d);
      Vector<T> sum{};
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t k = picked[i];
        const Vector<T> center = load(in(p.mean) + k * p.columns + d);
        const T* keep = in(p.keep) + k * p.variance_columns;
        const Vector<T> kept = diagonal() ? load(keep + d) : Vector<T>{} + keep[0];
        sum += weight[k] * (center + kept * (sample - center));
      }
      std::memcpy(denoised + d, &sum, sizeof sum);
    }
    for (; d < p.columns; ++d) {
      T sum = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t k = picked[i];
        const T center = in(p.mean)[k * p.columns + d];
        sum += weight[k] * (center + in(p.keep)[k * p.variance_columns + (diagonal() ? d : 0)] * (x[d] - center));
      }
      denoised[d] = sum;
    }
  }
};

template <class T>
void run(const MixtureParams& params, int threads) {
  const std::int64_t tiles = (params.rows + kTile - 1) / kTile;
  const std::int64_t work = params.rows * params.components * (params.columns + params.rank);
  parallel_for(tiles, work < 65536 ? 1 : threads, [&params](std::int64_t begin, std::int64_t end) {
    Tile<T> tile(params);
    for (std::int64_t i = begin; i < end; ++i)
      tile(i * kTile, static_cast<int>(std::min<std::int64_t>(kTile, params.rows - i * kTile)));
  });
}

}  // namespace

void mixture_rows(const MixtureParams& params, int threads) {
  params.type == Type::f64 ? run<double>(params, threads) : run<float>(params, threads);
}

}  // namespace headstart::cpu::HEADSTART_ISA
