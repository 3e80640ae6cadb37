// What this machine's processor can compute matrix products and convolutions in, as oneDNN would
// use it. Thread-safe; no torch.
#pragma once

#include <string>

namespace kino::engine {

struct CpuFeatures {
  // Without it (and without AVX) a convolution is a matrix product of gathered inputs.
  bool avx = false;
  // For products of float32 (AVX-512).
  bool avx512 = false;
  // For products of int8 (AVX512-VNNI).
  bool int8 = false;
  // Instructions for products of bfloat16 and of float16; without them such a product is many times
  // as slow as in float32.
  bool bfloat16 = false;
  bool float16 = false;
  // Tiles of bfloat16 (AMX), into which inputs are copied.
  bool amx = false;
};

// Asked of the processor once, under the limit of ONEDNN_MAX_CPU_ISA.
const CpuFeatures& ThisCpu();

// `has` under a value of ONEDNN_MAX_CPU_ISA ("AVX2", "AVX512_CORE_BF16"; empty: no limit; case does
// not matter). A value oneDNN does not know is no limit to it either.
CpuFeatures LimitedTo(const CpuFeatures& has, const std::string& max_isa);

}  // namespace kino::engine
