// The operators' CUDA kernels, compiled for the CPU by tests/support/cuda_emulator.h: the functions
// of engine/ops/cuda under kino::engine::emulated. For one test file, which is compiled with ASan.
#pragma once

#include "tests/support/cuda_emulator.h"

#define cuda emulated
#include "engine/ops/cuda/channel_kernels.cu"
#include "engine/ops/cuda/frame_kernels.cu"
#include "engine/ops/cuda/row_kernels.cu"
#undef cuda
