#include "tests/fuzz/fuzz_target.h"

#include <cstdio>
#include <cstdlib>

namespace kino::fuzz {

const std::vector<FuzzTarget>& FuzzTargets() {
  static const std::vector<FuzzTarget> targets = [] {
    std::vector<FuzzTarget> all;
    for (const auto& some :
         {BpeTargets(), CheckpointTargets(), ConfigTargets(), LinkTargets(), MediaTargets(),
          RequestTargets(), RpcTargets(), StreamTargets(), TextTargets(), WorkerTargets()}) {
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }();
  return targets;
}

const FuzzTarget& FindFuzzTarget(std::string_view name) {
  for (const FuzzTarget& target : FuzzTargets()) {
    if (target.name == name) return target;
  }
  std::fprintf(stderr, "no fuzz target '%.*s'\n", static_cast<int>(name.size()), name.data());
  std::abort();
}

void Require(bool holds, const char* promise) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", promise);
  std::abort();
}

}  // namespace kino::fuzz
