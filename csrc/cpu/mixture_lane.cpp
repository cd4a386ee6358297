// Mixture posterior of samples of few elements, one sample a lane, one vector a dimension. Components of few axes give
// their posterior means at once. Where those cost more, a chunk of samples is scored first, and then, component by
// component, the samples that it matters for are packed into full vectors.
#include <algorithm>
#include <limits>

#include "../math/log_sum_exp.h"
#include "../typed.h"
#include "mixture.h"
#include "parallel.h"
#include "vector.h"

namespace headstart::cpu::HEADSTART_ISA {
namespace {

constexpr std::int64_t kFewAxes = 16;
constexpr std::int64_t kChunk = 256;  // samples at most: enough to fill packs, few enough for the cache

// Below this a responsibility is lost in the rounding of the sum, unless means lie 1 / epsilon apart.
template <class T>
constexpr T kNegligible = std::numeric_limits<T>::epsilon() * std::numeric_limits<T>::epsilon();

template <class T>
class LanePosterior {
 public:
  explicit LanePosterior(const TypedMixture<T>& mixture)
      : p(mixture),
        x(p.columns),
        difference(p.columns),
        mean(p.columns),
        sum(p.columns),
        y(p.rank),
        joint(p.components),
        weight(packed() ? kChunk * p.components : 0) {}

  // Samples first .. first + count - 1, count <= kChunk.
  void operator()(std::int64_t first, std::int64_t count) {
    for (std::int64_t at = 0; at < count; at += lanes) {
      const int inside = static_cast<int>(std::min<std::int64_t>(lanes, count - at));
      for (int lane = 0; lane < lanes; ++lane) row[lane] = first + at + std::min(lane, inside - 1);
      load();
      for (std::int64_t k = 0; k < p.components; ++k) joint[k] = score(k);
      normalize();
      store(at, inside);
      if (p.denoised != nullptr && !packed()) gather_here(inside);
    }
    if (!packed()) return;
    T* denoised = p.denoised + first * p.columns;
    std::fill(denoised, denoised + count * p.columns, T(0));
    for (std::int64_t k = 0; k < p.components; ++k) gather(k, first, count);
  }

 private:
  static constexpr int lanes = kLanes<T>;
  const TypedMixture<T>& p;
  Vectors<T> x, difference, mean, sum, y, joint;
  std::vector<T> weight;  // [kChunk, K]
  std::int64_t row[lanes];
  Vector<T> log_prob;

  bool diagonal() const { return p.variance_columns != 1; }
  bool packed() const { return p.denoised != nullptr && p.rank > kFewAxes; }

  void load() {
    for (int lane = 0; lane < lanes; ++lane) {
      const T* sample = p.x + row[lane] * p.columns;
      for (std::int64_t d = 0; d < p.columns; ++d) x[d][lane] = sample[d];
    }
  }

  void subtract(std::int64_t k) {
    const T* of = p.mean + k * p.columns;
    for (std::int64_t d = 0; d < p.columns; ++d) difference[d] = x[d] - of[d];
  }

  // sum_d precision_d difference_d^2, in runs of 64 so that rounding does not grow with D.
  Vector<T> distance(std::int64_t k) const {
    const T* precision = p.precision + k * p.variance_columns;
    Vector<T> total{};
    for (std::int64_t first = 0; first < p.columns; first += 64) {
      Vector<T> run{};
      for (std::int64_t d = first; d < std::min(first + 64, p.columns); ++d)
        run += difference[d] * difference[d] * (diagonal() ? precision[d] : T(1));
      total += run;
    }
    return diagonal() ? total : total * precision[0];
  }

  // log weight_k + log p_k(x)
  Vector<T> score(std::int64_t k) {
    subtract(k);
    Vector<T> quadratic{};
    if (p.whitening != nullptr) {
      const T* whitening = p.whitening + k * p.columns * p.columns;
      products<T>(whitening, p.columns, p.columns, difference.data(), p.columns, true,
                  [&](std::int64_t, Vector<T> z) { quadratic += z * z; });
    } else {
      if (p.rank < p.columns) quadratic = distance(k);  // a full set of axes leaves nothing off them
      const T* drop = p.drop + k * p.rank;
      products<T>(p.axes + k * p.rank * p.columns, p.columns, p.rank, difference.data(), p.columns, false,
                  [&](std::int64_t r, Vector<T> along) { quadratic -= along * along * drop[r]; });
    }
    const T* constant = p.log_constant + k;
    if (p.log_constant_stride == 0) return constant[0] - T(0.5) * quadratic;
    Vector<T> of_sample;
    for (int lane = 0; lane < lanes; ++lane) of_sample[lane] = constant[row[lane] * p.log_constant_stride];
    return of_sample - T(0.5) * quadratic;
  }

  // joint becomes the responsibilities.
  void normalize() {
    const auto exp = [](Vector<T> a) { return map_lanes<T>(a, [](T lane) { return exp_of(lane); }); };
    const auto log = [](Vector<T> a) { return map_lanes<T>(a, [](T lane) { return log_of(lane); }); };
    log_prob = take_shares(joint.data(), p.components, exp, log);
  }

  void store(std::int64_t at, int inside) {
    for (int lane = 0; lane < inside; ++lane) {
      p.log_prob[row[lane]] = log_prob[lane];
      if (p.responsibility != nullptr) copy_lane(lane, p.responsibility + row[lane] * p.components);
      if (packed()) copy_lane(lane, weight.data() + (at + lane) * p.components);
    }
  }

  void copy_lane(int lane, T* to) const {
    for (std::int64_t k = 0; k < p.components; ++k) to[k] = joint[k][lane];
  }

  // mean = mean_k + keep (x - mean_k) + sum_r gain_r y_r axes_r
  void find_mean(std::int64_t k) {
    subtract(k);
    const T *of = p.mean + k * p.columns, *keep = p.keep + k * p.variance_columns;
    for (std::int64_t d = 0; d < p.columns; ++d) mean[d] = of[d] + keep[diagonal() ? d : 0] * difference[d];
    const T *axes = p.axes + k * p.rank * p.columns, *gain = p.gain + k * p.rank;
    products<T>(axes, p.columns, p.rank, difference.data(), p.columns, false,
                [&](std::int64_t r, Vector<T> along) { y[r] = along * gain[r]; });
    add_rows<T>(axes, p.columns, p.rank, y.data(), mean.data());
  }

  // The posterior means of the samples that are loaded, all components.
  void gather_here(int inside) {
    std::fill(sum.begin(), sum.end(), Vector<T>{});
    for (std::int64_t k = 0; k < p.components; ++k) {
      bool any = false;
      for (int lane = 0; lane < lanes; ++lane) any = any || !(joint[k][lane] <= kNegligible<T>);  // NaN counts
      if (!any) continue;
      find_mean(k);
      for (std::int64_t d = 0; d < p.columns; ++d) sum[d] += joint[k] * mean[d];
    }
    for (int lane = 0; lane < inside; ++lane) {
      T* denoised = p.denoised + row[lane] * p.columns;
      for (std::int64_t d = 0; d < p.columns; ++d) denoised[d] = sum[d][lane];
    }
  }

  // denoised += weight mean of component k, packs of samples at a time.
  void gather(std::int64_t k, std::int64_t first, std::int64_t count) {
    T share[lanes];
    int filled = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const T w = weight[i * p.components + k];
      if (w <= kNegligible<T>) continue;  // NaN goes on: it must show
      row[filled] = first + i;
      share[filled] = w;
      if (++filled == lanes) gather_pack(k, share, filled), filled = 0;
    }
    if (filled > 0) gather_pack(k, share, filled);
  }

  void gather_pack(std::int64_t k, const T* share, int filled) {
    for (int lane = filled; lane < lanes; ++lane) row[lane] = row[0];
    load();
    find_mean(k);
    for (int lane = 0; lane < filled; ++lane) {
      T* denoised = p.denoised + row[lane] * p.columns;
      for (std::int64_t d = 0; d < p.columns; ++d) denoised[d] += share[lane] * mean[d][lane];
    }
  }
};

template <class T>
void run(const TypedMixture<T>& p, int threads) {
  const std::int64_t of_thread = (p.rows + threads - 1) / threads;
  const std::int64_t size = std::min(kChunk, (of_thread + kLanes<T> - 1) / kLanes<T> * kLanes<T>);
  const std::int64_t chunks = (p.rows + size - 1) / size;
  const std::int64_t work = p.rows * p.components * p.columns * (p.rank + 4);
  parallel_for(chunks, work < 65536 ? 1 : threads, [&p, size](std::int64_t begin, std::int64_t end) {
    LanePosterior<T> posterior(p);
    for (std::int64_t i = begin; i < end; ++i) posterior(i * size, std::min(size, p.rows - i * size));
  });
}

}  // namespace

void mixture_lane(const MixtureParams& params, int threads) {
  params.type == Type::f64 ? run(typed<double>(params), threads) : run(typed<float>(params), threads);
}

}  // namespace headstart::cpu::HEADSTART_ISA
