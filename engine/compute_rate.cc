#include "engine/compute_rate.h"

namespace kino::engine {
namespace {

// Half of what is older than so many seconds of computing is forgotten: clocks and neighbours
// change.
constexpr double kMemorySeconds = 600;

}  // namespace

void ComputeRate::Add(Stage stage, double flops, double seconds) {
  if (!(flops > 0) || !(seconds > 0)) return;
  for (Sum* sum : {&stages_.at(static_cast<size_t>(stage)), &all_}) {
    if (sum->seconds > kMemorySeconds) {
      sum->flops /= 2;
      sum->seconds /= 2;
    }
    sum->flops += flops;
    sum->seconds += seconds;
  }
}

std::optional<double> ComputeRate::Seconds(Stage stage, double flops) const {
  if (flops <= 0) return 0;
  const Sum& own = stages_.at(static_cast<size_t>(stage));
  const Sum& sum = own.flops > 0 ? own : all_;
  if (sum.flops <= 0) return std::nullopt;
  return flops * sum.seconds / sum.flops;
}

}  // namespace kino::engine
