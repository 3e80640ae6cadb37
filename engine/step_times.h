// The usual seconds of a step of each stage: the median of its latest ones. One thread at a time.
#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <vector>

#include "engine/describe/stage.h"

namespace kino::engine {

class StepTimes {
 public:
  void Add(Stage stage, double seconds) {
    std::deque<double>& latest = latest_[stage];
    latest.push_back(seconds);
    if (latest.size() > kLatest) latest.pop_front();
    ++counts_[stage];
  }
  int Count(Stage stage) const {
    const auto found = counts_.find(stage);
    return found == counts_.end() ? 0 : found->second;
  }
  // The lower one of two in the middle; 0: no step of the stage is known.
  double Median(Stage stage) const {
    const auto found = latest_.find(stage);
    if (found == latest_.end()) return 0;
    std::vector<double> sorted(found->second.begin(), found->second.end());
    const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>((sorted.size() - 1) / 2);
    std::nth_element(sorted.begin(), middle, sorted.end());
    return *middle;
  }

 private:
  static constexpr size_t kLatest = 15;
  std::map<Stage, std::deque<double>> latest_;
  std::map<Stage, int> counts_;
};

}  // namespace kino::engine
