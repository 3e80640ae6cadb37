// What a device computes in a second, as runs on it have shown: the time a run has left is its
// floating-point operations over this rate, also before it has done a step of its own. One thread.
#pragma once

#include <array>
#include <cstddef>
#include <optional>

#include "engine/describe/stage.h"

namespace kino::engine {

class ComputeRate {
 public:
  // `flops` of `stage` took so many seconds; ignored unless both are above 0.
  void Add(Stage stage, double flops, double seconds);
  // That `flops` of `stage` will take: at the stage's own rate, or else at that of all stages.
  // Nothing while no stage has been measured.
  std::optional<double> Seconds(Stage stage, double flops) const;

 private:
  struct Sum {
    double flops = 0;
    double seconds = 0;
  };
  std::array<Sum, static_cast<size_t>(Stage::kMux) + 1> stages_;  // kMux is the last
  Sum all_;
};

}  // namespace kino::engine
