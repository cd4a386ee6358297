// The two ways of the mixture posterior, compiled for each instruction set; mixture.cpp chooses.
#pragma once

#include "isa.h"

namespace headstart::cpu::HEADSTART_ISA {

// Samples of few elements: one sample a lane, axes included.
void mixture_lanes(const MixtureParams& params, int threads);

// Samples of any size, one after the other: y comes from `projection`, or there are no axes.
void mixture_rows(const MixtureParams& params, int threads);

}  // namespace headstart::cpu::HEADSTART_ISA
