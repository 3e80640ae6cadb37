// How weights stay in memory while a model runs, as configs and requests spell it. engine/memory
// carries it out. Values only.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace kino::engine {

struct ResidencyPolicy {
  // 0: every weight stays on the device. N: that many transformer blocks at a time.
  int blocks_per_group = 0;
  // Groups copied ahead of the one in use.
  int prefetch = 1;

  // "none" (or empty) or "block:N", N from 1. INVALID_ARGUMENT names what was got.
  static absl::StatusOr<ResidencyPolicy> Parse(const std::string& text);
  std::string ToString() const;
};

}  // namespace kino::engine
