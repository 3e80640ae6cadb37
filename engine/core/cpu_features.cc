#include "engine/core/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <initializer_list>

#include "absl/strings/ascii.h"

namespace kino::engine {
namespace {

CpuFeatures AskProcessor() {
  CpuFeatures has;
#if defined(__x86_64__)
  __builtin_cpu_init();
  has.avx = __builtin_cpu_supports("avx") != 0;
  has.avx512 = __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0;
  has.int8 = __builtin_cpu_supports("avx512vnni") != 0;
  has.bfloat16 = __builtin_cpu_supports("avx512bf16") != 0;
  // Compilers of today know no names for these two.
  constexpr unsigned kFeatures = 7, kAmxBf16 = 1u << 22, kAvx512Fp16 = 1u << 23;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (has.bfloat16 && __get_cpuid_count(kFeatures, 0, &eax, &ebx, &ecx, &edx) != 0) {
    has.float16 = (edx & kAvx512Fp16) != 0;
    has.amx = (edx & kAmxBf16) != 0;
  }
#endif
  return has;
}

// oneDNN's own variable, and its name before version 2.
std::string MaxIsa() {
  for (const char* name : {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}) {
    if (const char* value = std::getenv(name)) return value;
  }
  return "";
}

}  // namespace

CpuFeatures LimitedTo(const CpuFeatures& has, const std::string& max_isa) {
  const std::string isa = absl::AsciiStrToUpper(max_isa);
  const auto is_one_of = [&isa](std::initializer_list<const char*> names) {
    return std::find(names.begin(), names.end(), isa) != names.end();
  };
  // Each step of the ladder loses what the steps above it have.
  const bool before_avx = is_one_of({"SSE41"});
  const bool before_avx512 = before_avx || is_one_of({"AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2"});
  const bool before_int8 = before_avx512 || isa == "AVX512_CORE";
  const bool before_bfloat16 = before_int8 || isa == "AVX512_CORE_VNNI";
  const bool before_float16 = before_bfloat16 || isa == "AVX512_CORE_BF16";
  const bool before_amx = before_float16 || is_one_of({"AVX512_CORE_FP16", "AVX10_1_512"});
  return {.avx = has.avx && !before_avx,
          .avx512 = has.avx512 && !before_avx512,
          .int8 = has.int8 && !before_int8,
          .bfloat16 = has.bfloat16 && !before_bfloat16,
          .float16 = has.float16 && !before_float16,
          .amx = has.amx && !before_amx};
}

const CpuFeatures& ThisCpu() {
  static const CpuFeatures features = LimitedTo(AskProcessor(), MaxIsa());
  return features;
}

}  // namespace kino::engine
