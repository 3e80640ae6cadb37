// How long runs have taken, learnt from those that have finished: hang limits and the estimates of
// waiting times go by it. Thread-safe; no call blocks.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "scheduler/jobs/job.h"

namespace kino::scheduler {

// Of the runs of one model and shape under one setting that it remembers. The one that was
// learnt from the longest ago is forgotten first.
inline constexpr size_t kMaxRememberedRuns = 4096;

struct FinishedRun {
  struct Stage {
    int stage = kStageWaiting;
    absl::Duration time{};
    int steps = 0;  // that were timed
    absl::Duration usual_step{};
  };
  std::string model{};
  JobWork work{};
  // Opaque: the plan that ran and the device. Under another one a step takes another time.
  std::string setting{};
  std::vector<Stage> stages{};
};

struct UsualStep {
  int steps = 0;  // that have finished, over all runs
  absl::Duration time{};
};
using UsualSteps = std::map<int, UsualStep>;  // by stage

class RunHistory {
 public:
  void Learn(const FinishedRun& run);

  // Of runs of this model and shape under this setting; empty: none is known.
  UsualSteps StepsOf(const std::string& model, const std::string& shape,
                     const std::string& setting) const;
  // How long such a run takes once its model is loaded: by runs of its model and shape; without
  // one by its operations, at the rate of its model's runs, or of all. Nothing: not known.
  std::optional<absl::Duration> RunTime(const std::string& model, const JobWork& work) const;
  // Zero: not known.
  absl::Duration LoadTime(const std::string& model) const;

 private:
  // The latest counts for a third, what was known for the rest.
  class Mean {
   public:
    void Add(double value);
    const std::optional<double>& value() const { return value_; }

   private:
    std::optional<double> value_;
  };
  struct Shape {
    Mean step_seconds;   // of the stage whose steps a request asks for
    Mean other_seconds;  // of all other stages but loading
    int64_t learnt = 0;
  };
  struct Setting {
    UsualSteps steps;
    int64_t learnt = 0;
  };
  struct Model {
    Mean flops_per_second;
    Mean load_seconds;
  };
  using Key = std::vector<std::string>;

  mutable absl::Mutex mutex_;
  int64_t learnt_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<Key, Shape> shapes_ ABSL_GUARDED_BY(mutex_);      // by model and shape
  absl::flat_hash_map<Key, Setting> settings_ ABSL_GUARDED_BY(mutex_);  // and setting
  absl::flat_hash_map<std::string, Model> models_ ABSL_GUARDED_BY(mutex_);
  Mean flops_per_second_ ABSL_GUARDED_BY(mutex_);  // of all models
};

}  // namespace kino::scheduler
