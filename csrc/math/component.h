// One Gaussian component at one noise level. Its tables are made on the host in float64 (ops/component.py):
//   log p_k(x) = constant - 1/2 (sum_d precision_d (x_d - mean_d)^2 - sum_r drop_r y_r^2),   y = axes (x - mean)
//   E_k[x0 | x] = mean + keep (x - mean) + sum_r gain_r y_r axes_r
// The mean is subtracted before anything is squared.
#pragma once

#include "config.h"

namespace headstart {

template <class T>
HS_INLINE T add_distance(T sum, T difference, T precision) {
  return fma_rn(difference * difference, precision, sum);
}

template <class T>
HS_INLINE T add_drop(T sum, T y, T drop) {
  return fma_rn(-(y * y), drop, sum);
}

template <class T>
HS_INLINE T conditional_mean(T mean, T keep, T difference) {
  return fma_rn(keep, difference, mean);
}

}  // namespace headstart
