// Mixture posterior of samples of any size. Vectors run along a sample; a few samples meet a few components at a time,
// so that each number read from memory serves several distances.
#include <algorithm>

#include "../math/log_sum_exp.h"
#include "../typed.h"
#include "mixture.h"
#include "parallel.h"
#include "vector.h"

namespace headstart::cpu::HEADSTART_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kTogether = 4;  // samples, and components
#else
constexpr int kTogether = 2;
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
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += vector[lane];
  return sum;
}

// sum_i weight_i y_i^2
template <class T>
T weighted_square(const T* y, const T* weight, std::int64_t count) {
  constexpr int lanes = kLanes<T>;
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
class RowPosterior {
 public:
  explicit RowPosterior(const TypedMixture<T>& mixture)
      : p(mixture), joint(kTogether * p.components), picked(p.components) {}

  // Samples first .. first + count - 1, count <= kTogether.
  void operator()(std::int64_t first, int count) {
    for (std::int64_t k = 0; k < p.components; k += kTogether) distances(first, count, k);
    for (int s = 0; s < count; ++s) {
      T* of_sample = joint.data() + s * p.components;
      for (std::int64_t k = 0; k < p.components; ++k) of_sample[k] = score(first + s, k, of_sample[k]);
      p.log_prob[first + s] = normalize(of_sample);
      if (p.responsibility != nullptr)
        std::copy(of_sample, of_sample + p.components, p.responsibility + (first + s) * p.components);
      if (p.coefficient != nullptr) write_coefficients(first + s, of_sample);
      if (p.denoised != nullptr) denoise(first + s, of_sample);
    }
  }

 private:
  static constexpr int lanes = kLanes<T>;
  const TypedMixture<T>& p;
  std::vector<T> joint;  // [kTogether, K]
  std::vector<std::int64_t> picked;

  bool diagonal() const { return p.variance_columns != 1; }

  // sum_d precision_d (x_d - mean_d)^2 of a few samples and components into `joint`; samples and components beyond the
  // end repeat the last.
  void distances(std::int64_t first, int count, std::int64_t k) {
    const T *x[kTogether], *mean[kTogether], *precision[kTogether];
    for (int i = 0; i < kTogether; ++i) {
      const std::int64_t component = std::min(k + i, p.components - 1);
      x[i] = p.x + (first + std::min(i, count - 1)) * p.columns;
      mean[i] = p.mean + component * p.columns;
      precision[i] = p.precision + component * p.variance_columns;
    }
    T sum[kTogether][kTogether] = {};
    diagonal() ? add_distances<true>(x, mean, precision, sum) : add_distances<false>(x, mean, precision, sum);
    for (int s = 0; s < count; ++s)
      for (int c = 0; c < kTogether && k + c < p.components; ++c)
        joint[s * p.components + k + c] = diagonal() ? sum[s][c] : sum[s][c] * precision[c][0];
  }

  template <bool weighted>
  void add_distances(const T* const* x, const T* const* mean, const T* const* precision,
                     T (&sum)[kTogether][kTogether]) const {
    Vector<T> sums[kTogether][kTogether] = {};
    std::int64_t d = 0;
    for (; d + lanes <= p.columns; d += lanes) {
      Vector<T> samples[kTogether];
      for (int s = 0; s < kTogether; ++s) samples[s] = load(x[s] + d);
#pragma GCC unroll 4
      for (int c = 0; c < kTogether; ++c) {
        const Vector<T> center = load(mean[c] + d);
        const Vector<T> weight = weighted ? load(precision[c] + d) : Vector<T>{};
#pragma GCC unroll 4
        for (int s = 0; s < kTogether; ++s) {
          const Vector<T> difference = samples[s] - center;
          sums[s][c] += weighted ? difference * weight * difference : difference * difference;
        }
      }
    }
    for (int s = 0; s < kTogether; ++s)
      for (int c = 0; c < kTogether; ++c) {
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
      const T* y = p.projection + (row * p.components + k) * p.rank;
      quadratic -= weighted_square(y, p.drop + k * p.rank, p.rank);
    }
    return p.log_constant[row * p.log_constant_stride + k] - T(0.5) * quadratic;
  }

  // joint becomes the responsibilities; returns log p(x).
  T normalize(T* of_sample) const {
    return take_shares(of_sample, p.components, [](T a) { return exp_of(a); }, [](T a) { return log_of(a); });
  }

  void write_coefficients(std::int64_t row, const T* weight) const {
    for (std::int64_t k = 0; k < p.components; ++k) {
      const T of_component = weight[k];
      const T* __restrict__ gain = p.gain + k * p.rank;
      const T* __restrict__ y = p.projection + (row * p.components + k) * p.rank;
      T* __restrict__ coefficient = p.coefficient + (row * p.components + k) * p.rank;
      for (std::int64_t r = 0; r < p.rank; ++r)
        coefficient[r] = of_component == T(0) ? T(0) : of_component * gain[r] * y[r];
    }
  }

  // sum_k weight_k (mean_k + keep_k (x - mean_k)) over the components that have any weight
  void denoise(std::int64_t row, const T* weight) {
    std::int64_t count = 0;
    for (std::int64_t k = 0; k < p.components; ++k)
      if (weight[k] != T(0)) picked[count++] = k;  // NaN too: it must show
    const T* x = p.x + row * p.columns;
    T* denoised = p.denoised + row * p.columns;
    std::int64_t d = 0;
    for (; d + lanes <= p.columns; d += lanes) {
      const Vector<T> sample = load(x + d);
      Vector<T> sum{};
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t k = picked[i];
        const Vector<T> center = load(p.mean + k * p.columns + d);
        const T* keep = p.keep + k * p.variance_columns;
        const Vector<T> kept = diagonal() ? load(keep + d) : Vector<T>{} + keep[0];
        sum += weight[k] * (center + kept * (sample - center));
      }
      std::memcpy(denoised + d, &sum, sizeof sum);
    }
    for (; d < p.columns; ++d) {
      T sum = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t k = picked[i];
        const T center = p.mean[k * p.columns + d];
        sum += weight[k] * (center + p.keep[k * p.variance_columns + (diagonal() ? d : 0)] * (x[d] - center));
      }
      denoised[d] = sum;
    }
  }
};

template <class T>
void run(const TypedMixture<T>& p, int threads) {
  const std::int64_t teams = (p.rows + kTogether - 1) / kTogether;
  const std::int64_t work = p.rows * p.components * (p.columns + p.rank);
  parallel_for(teams, work < 65536 ? 1 : threads, [&p](std::int64_t begin, std::int64_t end) {
    RowPosterior<T> posterior(p);
    for (std::int64_t i = begin; i < end; ++i)
      posterior(i * kTogether, static_cast<int>(std::min<std::int64_t>(kTogether, p.rows - i * kTogether)));
  });
}

}  // namespace

void mixture_row(const MixtureParams& params, int threads) {
  params.type == Type::f64 ? run(typed<double>(params), threads) : run(typed<float>(params), threads);
}

}  // namespace headstart::cpu::HEADSTART_ISA
