// One term of the row `x' = a x + sum_j b_j y_j + c z`: a first product, then one fused multiply-add a term, in this
// order on every device.
#pragma once

#include "convert.h"

namespace headstart {

template <class T, class Input>
HS_INLINE T first_term(T a, Input x) {
  return a * widen<T>(x);
}

template <class T, class Input>
HS_INLINE T add_term(T sum, T b, Input y) {
  return fma_rn(b, widen<T>(y), sum);
}

}  // namespace headstart
