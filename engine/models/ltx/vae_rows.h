// Loops over one position's channels on the CPU, compiled for several instruction sets and chosen
// at start by the machine. Pointers do not alias; `n` is the number of channels. Pure functions.
#pragma once

#include <cstdint>

namespace kino::engine::cpu {

// Sum of squares. bfloat16 is given as its bits.
float SumSquares(const float* x, int64_t n);
float SumSquaresBFloat16(const uint16_t* x, int64_t n);

// out = SiLU(x * norm * gain + shift); gain and shift may both be nullptr.
void NormSiluRow(const float* x, float norm, const float* gain, const float* shift, float* out,
                 int64_t n);
// The same, rounded to bfloat16 behind each step. gain and shift hold bfloat16 values.
void NormSiluRowBFloat16(const uint16_t* x, float norm, const float* gain, const float* shift,
                         uint16_t* out, int64_t n);

}  // namespace kino::engine::cpu
