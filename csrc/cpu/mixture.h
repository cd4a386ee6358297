// The two ways of the mixture posterior, compiled for each instruction set; mixture.cpp chooses.
#pragma once

#include "isa.h"

namespace headstart::cpu::HEADSTART_ISA {

// Samples of few elements: a lane a sample, axes included.
void mixture_lane(const MixtureParams& params, int threads);

// Samples of any size, each its row of memory: y comes from `projection`, or there are no axes.
void mixture_row(const MixtureParams& params, int threads);

}  // namespace headstart::cpu::HEADSTART_ISA
