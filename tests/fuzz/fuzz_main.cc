// libFuzzer's entry for the target that the build names.
#include <cstddef>
#include <cstdint>

#include "engine/core/log.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const kino::fuzz::FuzzTarget& target = [&]() -> const kino::fuzz::FuzzTarget& {
    kino::engine::SetLogSink([](kino::engine::LogLevel, std::string_view) {});
    return kino::fuzz::FindFuzzTarget(KINO_FUZZ_TARGET);
  }();
  target.run({reinterpret_cast<const char*>(data), size});
  return 0;
}
