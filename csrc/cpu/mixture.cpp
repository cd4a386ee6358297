// Mixture posterior, a block of samples at a time: one sample a lane, one vector a dimension. All components are scored
// first (their projections y are kept), then the posterior mean is gathered with the known responsibilities.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../math/component.h"
#include "isa.h"
#include "parallel.h"

namespace headstart::cpu::HEADSTART_ISA {
namespace {

template <class T>
struct Block {
  static constexpr int lanes = 64 / sizeof(T);
  typedef T Vector __attribute__((vector_size(64)));
};
template <class T>
using Vector = typename Block<T>::Vector;

// Vectors need their alignment from the heap too.
template <class T>
using Row = std::vector<Vector<T>>;

template <class T>
struct Scratch {
  Row<T> x, difference, sum, y, log_joint;
  Scratch(const MixtureParams& p)
      : x(p.columns),
        difference(p.columns),
        sum(p.denoised ? p.columns : 0),
        y(p.components * p.rank),
        log_joint(p.components) {}
};

// sum_d precision_d difference_d^2, in runs of 64 so that rounding does not grow with D.
template <class T>
Vector<T> distance(const Row<T>& difference, const T* precision, bool diagonal) {
  const std::int64_t columns = static_cast<std::int64_t>(difference.size());
  Vector<T> total{};
  for (std::int64_t first = 0; first < columns; first += 64) {
    Vector<T> run{};
    for (std::int64_t d = first; d < std::min(first + 64, columns); ++d) {
      const Vector<T> square = difference[d] * difference[d];
      run += diagonal ? square * precision[d] : square;
    }
    total += run;
  }
  return diagonal ? total : total * precision[0];
}

// y_r = sum_d axes_rd difference_d, four axes at a time.
template <class T>
void project(const Row<T>& difference, const T* axes, std::int64_t rank, Vector<T>* y) {
  const std::int64_t columns = static_cast<std::int64_t>(difference.size());
  std::int64_t r = 0;
  for (; r + 4 <= rank; r += 4) {
    const T *a = axes + r * columns, *b = a + columns, *c = b + columns, *e = c + columns;
    Vector<T> s0{}, s1{}, s2{}, s3{};
    for (std::int64_t d = 0; d < columns; ++d) {
      s0 += a[d] * difference[d];
      s1 += b[d] * difference[d];
      s2 += c[d] * difference[d];
      s3 += e[d] * difference[d];
    }
    y[r] = s0, y[r + 1] = s1, y[r + 2] = s2, y[r + 3] = s3;
  }
  for (; r < rank; ++r) {
    Vector<T> s{};
    for (std::int64_t d = 0; d < columns; ++d) s += axes[r * columns + d] * difference[d];
    y[r] = s;
  }
}

template <class T>
class Run {
 public:
  Run(const MixtureParams& params, Scratch<T>& scratch) : p(params), s(scratch) {}

  // Samples first .. first + count - 1, count <= lanes; unused lanes repeat the last sample.
  void operator()(std::int64_t first, int count) {
    load(first, count);
    for (std::int64_t k = 0; k < p.components; ++k) score(k, first, count);
    normalize(first, count);
    if (p.coefficient != nullptr) write_coefficients(first, count);
    if (p.denoised != nullptr) denoise(first, count);
  }

 private:
  static constexpr int lanes = Block<T>::lanes;
  const MixtureParams& p;
  Scratch<T>& s;

  static const T* in(const void* data) { return static_cast<const T*>(data); }
  static T* out(void* data) { return static_cast<T*>(data); }
  bool diagonal() const { return p.variance_columns != 1; }

  void load(std::int64_t first, int count) {
    for (int lane = 0; lane < lanes; ++lane) {
      const T* x = in(p.x) + (first + std::min(lane, count - 1)) * p.columns;
      for (std::int64_t d = 0; d < p.columns; ++d) s.x[d][lane] = x[d];
    }
  }

  void score(std::int64_t k, std::int64_t first, int count) {
    const T* mean = in(p.mean) + k * p.columns;
    for (std::int64_t d = 0; d < p.columns; ++d) s.difference[d] = s.x[d] - mean[d];
    Vector<T> quadratic = distance<T>(s.difference, in(p.precision) + k * p.variance_columns, diagonal());
    Vector<T>* y = s.y.data() + k * p.rank;
    if (p.projection == nullptr) {
      project<T>(s.difference, in(p.axes) + k * p.rank * p.columns, p.rank, y);
    } else {
      for (int lane = 0; lane < lanes; ++lane) {
        const std::int64_t row = first + std::min(lane, count - 1);
        const T* projection = in(p.projection) + (row * p.components + k) * p.rank;
        for (std::int64_t r = 0; r < p.rank; ++r) y[r][lane] = projection[r];
      }
    }
    const T* drop = in(p.drop) + k * p.rank;
    for (std::int64_t r = 0; r < p.rank; ++r) quadratic -= y[r] * y[r] * drop[r];
    for (int lane = 0; lane < lanes; ++lane) {
      const std::int64_t row = first + std::min(lane, count - 1);
      const T constant = in(p.log_constant)[row * p.log_constant_stride + k];
      s.log_joint[k][lane] = constant - T(0.5) * quadratic[lane];
    }
  }

  // log_joint becomes the responsibilities.
  void normalize(std::int64_t first, int count) {
    for (int lane = 0; lane < lanes; ++lane) {
      T top = -std::numeric_limits<T>::infinity(), total = 0;
      for (std::int64_t k = 0; k < p.components; ++k) top = std::max(top, s.log_joint[k][lane]);
      const T shift = std::isfinite(top) ? top : T(0);
      for (std::int64_t k = 0; k < p.components; ++k) total += std::exp(s.log_joint[k][lane] - shift);
      const T log_prob = shift + std::log(total);
      for (std::int64_t k = 0; k < p.components; ++k)
        s.log_joint[k][lane] = total == T(0) ? T(0) : std::exp(s.log_joint[k][lane] - shift) / total;
      if (lane >= count) continue;
      out(p.log_prob)[first + lane] = log_prob;
      for (std::int64_t k = 0; k < p.components; ++k)
        out(p.responsibility)[(first + lane) * p.components + k] = s.log_joint[k][lane];
    }
  }

  void write_coefficients(std::int64_t first, int count) {
    for (int lane = 0; lane < count; ++lane) {
      T* coefficient = out(p.coefficient) + (first + lane) * p.components * p.rank;
      for (std::int64_t k = 0; k < p.components; ++k)
        for (std::int64_t r = 0; r < p.rank; ++r)
          coefficient[k * p.rank + r] = s.log_joint[k][lane] * in(p.gain)[k * p.rank + r] * s.y[k * p.rank + r][lane];
    }
  }

  void denoise(std::int64_t first, int count) {
    std::fill(s.sum.begin(), s.sum.end(), Vector<T>{});
    for (std::int64_t k = 0; k < p.components; ++k) {
      const Vector<T> weight = s.log_joint[k];
      bool used = false;
      for (int lane = 0; lane < lanes; ++lane) used = used || weight[lane] != T(0);  // NaN too: it must show
      if (used) gather(k, weight);
    }
    for (int lane = 0; lane < count; ++lane) {
      T* denoised = out(p.denoised) + (first + lane) * p.columns;
      for (std::int64_t d = 0; d < p.columns; ++d) denoised[d] = s.sum[d][lane];
    }
  }

  // sum += weight (mean + keep (x - mean) + sum_r gain_r y_r axes_r)
  void gather(std::int64_t k, Vector<T> weight) {
    const T *mean = in(p.mean) + k * p.columns, *keep = in(p.keep) + k * p.variance_columns;
    for (std::int64_t d = 0; d < p.columns; ++d)
      s.sum[d] += weight * (mean[d] + keep[diagonal() ? d : 0] * (s.x[d] - mean[d]));
    if (p.projection != nullptr) return;
    const T* gain = in(p.gain) + k * p.rank;
    std::int64_t r = 0;
    for (; r + 2 <= p.rank; r += 2) {
      const T *a = in(p.axes) + (k * p.rank + r) * p.columns, *b = a + p.columns;
      const Vector<T> u = weight * s.y[k * p.rank + r] * gain[r], v = weight * s.y[k * p.rank + r + 1] * gain[r + 1];
      for (std::int64_t d = 0; d < p.columns; ++d) s.sum[d] += a[d] * u + b[d] * v;
    }
    for (; r < p.rank; ++r) {
      const T* a = in(p.axes) + (k * p.rank + r) * p.columns;
      const Vector<T> u = weight * s.y[k * p.rank + r] * gain[r];
      for (std::int64_t d = 0; d < p.columns; ++d) s.sum[d] += a[d] * u;
    }
  }
};

template <class T>
void run(const MixtureParams& params, int threads) {
  constexpr int lanes = Block<T>::lanes;
  const std::int64_t blocks = (params.rows + lanes - 1) / lanes;
  const std::int64_t work = params.rows * params.components * params.columns * (params.rank + 4);
  parallel_for(blocks, work < 65536 ? 1 : threads, [&params](std::int64_t begin, std::int64_t end) {
    Scratch<T> scratch(params);
    Run<T> block(params, scratch);
    for (std::int64_t i = begin; i < end; ++i)
      block(i * lanes, static_cast<int>(std::min<std::int64_t>(lanes, params.rows - i * lanes)));
  });
}

}  // namespace

void mixture(const MixtureParams& params, int threads) {
  if (params.type == Type::f64) {
    run<double>(params, threads);
  } else {
    run<float>(params, threads);
  }
}

}  // namespace headstart::cpu::HEADSTART_ISA
