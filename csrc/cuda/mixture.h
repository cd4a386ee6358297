// The ways of the mixture posterior, named by what owns a sample; mixture.cu chooses.
#pragma once

#include "../typed.h"

namespace headstart::cuda {

constexpr std::int64_t kThreadColumns = 16;  // the most that mixture_thread takes

// Samples of very few elements, no `projection`: a thread a sample, axes included.
const char* mixture_thread(const MixtureParams& params, Queue queue);

// Samples of at most kFusedColumns elements, no `projection`: a warp for some samples, axes included.
const char* mixture_warp(const MixtureParams& params, Queue queue);

// Samples of any size, a block for two of them, without axes: y comes from `projection`, or rank is 0.
const char* mixture_block(const MixtureParams& params, Queue queue);

}  // namespace headstart::cuda
