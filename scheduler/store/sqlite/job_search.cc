#include "scheduler/store/sqlite/job_search.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"

namespace kino::scheduler {

namespace {

// What leads to the jobs of one state: an index, and the columns that the filter fixes in it.
struct Lead {
  std::string sql;
  std::vector<std::string> values;  // bound before state and seq
};

Lead LeadByState(const JobFilter& filter) {
  const bool has_tenant = !filter.tenant.empty(), has_model = !filter.model.empty();
  Lead lead;
  std::string where;
  if (has_tenant) {
    where += "tenant = ? AND ";
    lead.values.push_back(filter.tenant);
  }
  if (has_model) {
    where += "model = ? AND ";
    lead.values.push_back(filter.model);
  }
  // Named, so that the planner's statistics, or their absence, cannot change its mind.
  const char* const index = has_tenant && has_model ? "jobs_by_tenant_model_state"
                            : has_tenant            ? "jobs_by_tenant_state"
                            : has_model             ? "jobs_by_model_state"
                                                    : "jobs_by_state";
  lead.sql = absl::StrCat("SELECT seq FROM jobs INDEXED BY ", index, " WHERE ", where,
                          "state = ? AND seq <= ? ORDER BY seq DESC");
  return lead;
}

constexpr char kAllJobs[] = "SELECT seq FROM jobs WHERE seq <= ? ORDER BY seq DESC";
constexpr char kByLabel[] =
    "SELECT job FROM labels INDEXED BY labels_by_value "
    "WHERE tenant = ? AND key = ? AND value = ? AND job <= ? ORDER BY job DESC";
constexpr char kHasLabel[] = "SELECT 1 FROM labels WHERE job = ? AND key = ? AND value = ?";

// A tenant's label leads to the tenant's jobs by itself.
bool NeedsJobs(const JobFilter& filter) {
  return filter.labels.empty() || filter.tenant.empty() || !filter.model.empty() ||
         !filter.states.empty();
}

bool IsByState(const JobFilter& filter) {
  return !filter.states.empty() || !filter.tenant.empty() || !filter.model.empty();
}

}  // namespace

// A falling sequence of seqs.
class JobSearch::Source {
 public:
  virtual ~Source() = default;
  // To the highest seq that is at most `seq`: at() after this. `seq` never rises. Each index entry
  // that is looked at costs one of `steps`.
  virtual absl::Status MoveTo(int64_t seq, int64_t& steps) = 0;
  // 0 past the last one; seqs begin with 1.
  int64_t at() const { return at_; }
  // Whether at() is known to be in the sequence, rather than the highest that can be.
  bool is_sure() const { return is_sure_; }

 protected:
  int64_t at_ = INT64_MAX;
  bool is_sure_ = true;
};

// A range of an index.
class JobSearch::Range final : public Source {
 public:
  Range(Statement statement, std::vector<std::string> values, std::optional<int> state)
      : statement_(std::move(statement)), values_(std::move(values)), state_(state) {}

  absl::Status MoveTo(int64_t seq, int64_t& steps) override {
    // The next entries are near; beyond them a new descent through the tree is cheaper.
    for (int i = 0; i < kNear && is_started_ && at_ > seq; ++i) {
      KINO_RETURN_IF_ERROR(Step(steps));
    }
    if (at_ <= seq) return absl::OkStatus();
    statement_.Reset();
    for (const std::string& value : values_) statement_.Bind(value);
    if (state_) statement_.Bind(*state_);
    statement_.Bind(seq);
    is_started_ = true;
    return Step(steps);
  }

 private:
  static constexpr int kNear = 4;

  absl::Status Step(int64_t& steps) {
    --steps;
    KINO_ASSIGN_OR_RETURN(const bool has_row, statement_.Step());
    at_ = has_row ? statement_.Int64(0) : 0;
    return absl::OkStatus();
  }

  Statement statement_;
  const std::vector<std::string> values_;
  const std::optional<int> state_;
  bool is_started_ = false;
};

// Of several ranges without a seq in common.
class JobSearch::Union final : public Source {
 public:
  explicit Union(std::vector<std::unique_ptr<Source>> parts) : parts_(std::move(parts)) {}

  absl::Status MoveTo(int64_t seq, int64_t& steps) override {
    at_ = 0;
    for (const std::unique_ptr<Source>& part : parts_) {
      if (part->at() > seq) KINO_RETURN_IF_ERROR(part->MoveTo(seq, steps));
      at_ = std::max(at_, part->at());
    }
    return absl::OkStatus();
  }

 private:
  const std::vector<std::unique_ptr<Source>> parts_;
};

// Where no tenant is given: asks each job for the label.
class JobSearch::LabelProbe final : public Source {
 public:
  LabelProbe(Statement statement, std::string key, std::string value)
      : statement_(std::move(statement)), key_(std::move(key)), value_(std::move(value)) {}

  absl::Status MoveTo(int64_t seq, int64_t& steps) override {
    --steps;
    statement_.Reset();
    statement_.Bind(seq);
    statement_.Bind(key_);
    statement_.Bind(value_);
    KINO_ASSIGN_OR_RETURN(const bool has_label, statement_.Step());
    at_ = has_label ? seq : seq - 1;
    is_sure_ = has_label;
    return absl::OkStatus();
  }

 private:
  Statement statement_;
  const std::string key_, value_;
};

JobSearch::JobSearch(JobSearch&&) noexcept = default;
JobSearch::~JobSearch() = default;

std::vector<std::string> JobSearch::Statements(const JobFilter& filter) {
  std::vector<std::string> statements;
  if (NeedsJobs(filter)) {
    statements.push_back(IsByState(filter) ? LeadByState(filter).sql : kAllJobs);
  }
  if (!filter.labels.empty()) statements.push_back(filter.tenant.empty() ? kHasLabel : kByLabel);
  return statements;
}

absl::StatusOr<JobSearch> JobSearch::Start(Connection& db, const JobFilter& filter,
                                           int64_t before_seq, int max_steps) {
  JobSearch search;
  search.start_ = search.position_ = before_seq - 1;
  search.steps_left_ = std::max(1, max_steps);
  if (NeedsJobs(filter) && !IsByState(filter)) {
    KINO_ASSIGN_OR_RETURN(Statement all, db.PrepareOnce(kAllJobs));
    search.sources_.push_back(
        std::make_unique<Range>(std::move(all), std::vector<std::string>(), std::nullopt));
  } else if (NeedsJobs(filter)) {
    std::vector<JobState> states = filter.states;
    if (states.empty()) states.assign(std::begin(kAllJobStates), std::end(kAllJobStates));
    const Lead lead = LeadByState(filter);
    std::vector<std::unique_ptr<Source>> ranges;
    for (const JobState state : states) {
      KINO_ASSIGN_OR_RETURN(Statement range, db.PrepareOnce(lead.sql));
      ranges.push_back(
          std::make_unique<Range>(std::move(range), lead.values, static_cast<int>(state)));
    }
    search.sources_.push_back(std::make_unique<Union>(std::move(ranges)));
  }
  for (const auto& [key, value] : filter.labels) {
    KINO_ASSIGN_OR_RETURN(Statement label,
                          db.PrepareOnce(filter.tenant.empty() ? kHasLabel : kByLabel));
    if (filter.tenant.empty()) {
      search.sources_.push_back(std::make_unique<LabelProbe>(std::move(label), key, value));
    } else {
      search.sources_.push_back(std::make_unique<Range>(
          std::move(label), std::vector<std::string>{filter.tenant, key, value}, std::nullopt));
    }
  }
  return search;
}

absl::StatusOr<std::optional<int64_t>> JobSearch::Next() {
  const size_t count = sources_.size();
  size_t agreeing = 0;  // sources in a row that stand at position_
  for (size_t i = 0; agreeing < count && !is_at_end_; i = (i + 1) % count) {
    if (steps_left_ <= 0 && position_ < start_) {
      is_cut_off_ = true;
      return std::nullopt;
    }
    Source& source = *sources_[i];
    KINO_RETURN_IF_ERROR(source.MoveTo(position_, steps_left_));
    if (source.at() != position_) agreeing = 0;
    if (source.is_sure()) ++agreeing;
    position_ = source.at();
    is_at_end_ = position_ <= 0;
  }
  if (is_at_end_) return std::nullopt;
  return position_--;
}

}  // namespace kino::scheduler
