// Finds the jobs that a filter matches, newest first, by walking indexes only: one range per state
// of the index that tenant and model lead to, one range per label, joined by leaping to the lowest
// seq that any of them stands at. No row of `jobs` is read.
//
// A filter whose parts each match many jobs and together few can make that walk long. It is cut off
// after a number of steps; the caller goes on from where it stopped.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/store/job_store.h"
#include "scheduler/store/sqlite/database.h"

namespace kino::scheduler {

class JobSearch {
 public:
  // Jobs with a seq below `before_seq`, on `db`, which must outlive this. After about
  // `max_steps` index entries it is cut off, yet never before one job was given or dismissed.
  static absl::StatusOr<JobSearch> Start(Connection& db, const JobFilter& filter,
                                         int64_t before_seq, int max_steps);
  JobSearch(JobSearch&&) noexcept;
  ~JobSearch();

  // The seq of the next match. Nothing at the end, and where the steps are used up.
  absl::StatusOr<std::optional<int64_t>> Next();

  // After Next gave nothing: whether older jobs were not looked at, those below rest().
  bool is_cut_off() const { return is_cut_off_; }
  int64_t rest() const { return position_ + 1; }

  // The statements that a search by `filter` runs, for tests of their query plans.
  static std::vector<std::string> Statements(const JobFilter& filter);

 private:
  class Source;
  class Range;
  class Union;
  class LabelProbe;
  JobSearch() = default;

  std::vector<std::unique_ptr<Source>> sources_;
  int64_t start_ = 0;
  int64_t position_ = 0;  // the highest seq that is not looked at yet
  int64_t steps_left_ = 0;
  bool is_at_end_ = false;
  bool is_cut_off_ = false;
};

}  // namespace kino::scheduler
