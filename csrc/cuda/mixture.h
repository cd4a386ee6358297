// The ways of the mixture posterior; mixture.cu chooses.
#pragma once

#include "../kernels.h"

namespace headstart::cuda {

constexpr std::int64_t kSmallColumns = 128;  // the most that mixture_small takes
constexpr std::int64_t kTinyColumns = 16;    // the most that mixture_tiny takes

// Samples of very few elements, no `projection`: a thread a sample, axes included.
const char* mixture_tiny(const MixtureParams& params, Queue queue);

// Samples of few elements, no `projection`: a warp for some samples, axes included.
const char* mixture_small(const MixtureParams& params, Queue queue);

// Samples of any size, without axes: y comes from `projection`, or rank is 0.
const char* mixture_large(const MixtureParams& params, Queue queue);

}  // namespace headstart::cuda
