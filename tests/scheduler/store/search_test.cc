// Lists of every filter against a plain walk over all jobs, and the plans of every statement that
// the store runs: none looks at a whole table.
#include <sqlite3.h>

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "scheduler/store/sqlite/database.h"
#include "scheduler/store/sqlite/job_search.h"
#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {
namespace {

std::vector<JobFilter> EveryFilter() {
  const std::vector<std::vector<JobState>> all_states = {
      {},
      {JobState::kQueued},
      {JobState::kCancelled},
      {JobState::kQuarantined},
      {JobState::kSucceeded, JobState::kQueued},
      {JobState::kQueued, JobState::kQueued, JobState::kFailed, JobState::kRunning}};
  const std::vector<std::map<std::string, std::string>> all_labels = {
      {}, {{"a", "1"}}, {{"a", "1"}, {"b", "2"}}, {{"a", "0"}, {"b", "2"}}, {{"c", ""}}};
  std::vector<JobFilter> filters;
  for (const char* tenant : {"", "one", "two", "nobody"}) {
    for (const char* model : {"", "ltx", "mochi", "none"}) {
      for (const auto& states : all_states) {
        for (const auto& labels : all_labels) {
          filters.push_back({.tenant = tenant, .states = states, .model = model, .labels = labels});
        }
      }
    }
  }
  return filters;
}

bool Matches(const JobFilter& filter, const Job& job) {
  if (!filter.tenant.empty() && filter.tenant != job.tenant) return false;
  if (!filter.model.empty() && filter.model != job.model) return false;
  if (!filter.states.empty() &&
      std::find(filter.states.begin(), filter.states.end(), job.state) == filter.states.end()) {
    return false;
  }
  for (const auto& [key, value] : filter.labels) {
    const auto found = job.labels.find(key);
    if (found == job.labels.end() || found->second != value) return false;
  }
  return true;
}

std::string Describe(const JobFilter& filter) {
  std::string text = absl::StrCat("tenant '", filter.tenant, "' model '", filter.model, "' states");
  for (const JobState state : filter.states) absl::StrAppend(&text, " ", JobStateName(state));
  for (const auto& [key, value] : filter.labels) absl::StrAppend(&text, " ", key, "=", value);
  return text;
}

// SQLite calls this with every connection that is opened while the hook is in place.
absl::Mutex statements_mutex;
std::set<std::string>* statements = nullptr;
int Trace(unsigned, void*, void* statement, void*) {
  absl::MutexLock lock(&statements_mutex);
  if (statements != nullptr) {
    statements->insert(sqlite3_sql(static_cast<sqlite3_stmt*>(statement)));
  }
  return 0;
}
int Hook(sqlite3* db, char**, const void*) {
  return sqlite3_trace_v2(db, SQLITE_TRACE_STMT, Trace, nullptr);
}

class SearchTest : public testing::Test {
 protected:
  void Open(int max_list_steps) {
    store_.reset();
    auto store = OpenSqliteJobStore(
        {.path = folder_.File("jobs.db"), .max_list_steps = max_list_steps}, {}, clock_, random_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  // Jobs of every kind in every state.
  void Fill(int count) {
    for (int i = 0; i < count; ++i) {
      NewJob job = MakeJob(random_.Next() % 3 == 0 ? "mochi" : "ltx");
      job.tenant = random_.Next() % 4 == 0 ? "two" : "one";
      if (random_.Next() % 2 == 0) job.labels["a"] = std::to_string(random_.Next() % 2);
      if (random_.Next() % 3 == 0) job.labels["b"] = "2";
      if (random_.Next() % 9 == 0) job.labels["c"] = "";
      if (random_.Next() % 9 == 0) job.start_timeout = absl::Seconds(1);
      const auto submitted = store_->Submit(job);
      ASSERT_TRUE(submitted.ok()) << submitted.status();
      if (random_.Next() % 4 == 0) {
        ASSERT_TRUE(store_->Cancel(job.tenant, submitted->job.id).ok());
      }
      if (random_.Next() % 2 == 0) continue;
      const auto claim = ClaimNext(*store_, {.name = "w", .models = {"ltx", "mochi"}});
      ASSERT_TRUE(claim.ok()) << claim.status();
      if (!claim->has_value() || random_.Next() % 9 == 0) continue;
      const AttemptRef& ref = (*claim)->ref;
      if (random_.Next() % 2 == 0) {
        ASSERT_TRUE(store_->Commit(ref, MakeArtifact(ref.job_id), "").ok());
      } else {
        const FailureCause cause =
            random_.Next() % 2 == 0 ? FailureCause::kCrash : FailureCause::kClient;
        ASSERT_TRUE(store_->Fail(ref, {.cause = cause, .error = absl::InternalError("x")}).ok());
      }
    }
    clock_.Advance(absl::Seconds(2));
    const auto queue = store_->Queue();
    ASSERT_TRUE(queue.ok()) << queue.status();
    for (const QueuedJob& queued : *queue) {
      if (queued.start_deadline > clock_.Now()) continue;
      ASSERT_TRUE(store_->Expire(queued.id).ok());
    }
  }

  std::vector<std::string> Ids(const JobFilter& filter, int page_size, int* pages = nullptr) {
    std::vector<std::string> ids;
    std::string token;
    do {
      const auto page = store_->List(filter, page_size, token);
      EXPECT_TRUE(page.ok()) << page.status();
      if (!page.ok()) break;
      EXPECT_LE(page->jobs.size(), static_cast<size_t>(page_size));
      for (const Job& job : page->jobs) ids.push_back(job.id);
      token = page->next_page_token;
      if (pages != nullptr) ++*pages;
    } while (!token.empty());
    return ids;
  }

  ScratchFolder folder_;
  FakeClock clock_;
  SeededRandom random_{20};
  std::unique_ptr<JobStore> store_;
};

TEST_F(SearchTest, EveryFilterFindsWhatAWalkFinds) {
  Open(20000);
  Fill(300);
  std::vector<Job> all;
  {
    auto page = store_->List({}, 1000, "");
    ASSERT_TRUE(page.ok() && page->next_page_token.empty());
    all = std::move(page->jobs);
  }
  ASSERT_EQ(all.size(), 300u);
  for (const int steps : {20000, 1}) {
    Open(steps);
    int pages = 0;
    for (const JobFilter& filter : EveryFilter()) {
      std::vector<std::string> want;
      for (const Job& job : all) {
        if (Matches(filter, job)) want.push_back(job.id);
      }
      EXPECT_EQ(Ids(filter, 7, &pages), want) << Describe(filter) << ", " << steps << " steps";
    }
    std::cout << steps << " steps: " << pages << " pages" << std::endl;
  }
}

TEST_F(SearchTest, ASearchThatFindsLittleIsCutOffAndGoesOn) {
  Open(100);
  // Jobs with either label in turn, and one with both at the far end.
  NewJob job = MakeJob();
  job.labels = {{"a", "1"}, {"b", "2"}};
  const std::string both = store_->Submit(job)->job.id;
  for (int i = 0; i < 400; ++i) {
    job.labels = {{i % 2 == 0 ? "a" : "b", i % 2 == 0 ? "1" : "2"}};
    ASSERT_TRUE(store_->Submit(job).ok());
  }
  int pages = 0;
  EXPECT_THAT(Ids({.tenant = "default", .labels = {{"a", "1"}, {"b", "2"}}}, 10, &pages),
              testing::ElementsAre(both));
  EXPECT_GT(pages, 2);
  EXPECT_LT(pages, 20);
}

TEST_F(SearchTest, NoStatementLooksAtAWholeTable) {
  Open(20000);  // makes the schema, whose steps may look at everything
  std::set<std::string> seen;
  {
    absl::MutexLock lock(&statements_mutex);
    statements = &seen;
  }
  auto* const hook = reinterpret_cast<void (*)()>(Hook);
  ASSERT_EQ(sqlite3_auto_extension(hook), SQLITE_OK);
  Open(20000);
  Fill(60);
  for (const JobFilter& filter : EveryFilter()) Ids(filter, 10);
  // What Fill does not call.
  EXPECT_TRUE(store_->InsertAsset({.id = "x", .tenant = "one", .file_name = "x"}).ok());
  NewJob job = MakeJob();
  job.tenant = "one";
  job.asset_ids = {"x"};
  job.request_id = "once";
  const std::string id = store_->Submit(job)->job.id;
  EXPECT_FALSE(store_->DeleteAsset("one", "x").ok());
  EXPECT_TRUE(store_->DeleteUnusedAssets(absl::InfiniteFuture(), 10).ok());
  EXPECT_TRUE(store_->Get("one", id).ok());
  EXPECT_TRUE(store_->GetAsset("one", "x").ok());
  EXPECT_TRUE(store_->ListAssets("one", 10).ok());
  EXPECT_TRUE(store_->ListAssets("", 10).ok());
  EXPECT_TRUE(store_->RunningAttempts().ok());
  EXPECT_TRUE(store_->FindByRequestId("one", "once")->has_value());
  EXPECT_FALSE(store_->Queue()->empty());
  EXPECT_TRUE(store_->Load().ok());
  EXPECT_TRUE(store_->ReadEvents(id, 0, 10).ok());
  EXPECT_TRUE(store_->ReadChanges(0, 10).ok());
  EXPECT_TRUE(store_->LatestCursor().ok());
  EXPECT_TRUE(store_->FindLeftOverFiles({"x"}).ok());
  EXPECT_TRUE(store_->Expire(id).ok());
  EXPECT_TRUE(store_->Requeue("one", id).ok());
  const AttemptRef crashed = (*store_->Claim(id, "w"))->ref;
  EXPECT_TRUE(store_->CheckAttempt(crashed).ok());
  EXPECT_TRUE(store_->RecordStats(crashed, "plan").ok());
  EXPECT_TRUE(
      store_->Fail(crashed, {.cause = FailureCause::kCrash, .error = absl::InternalError("x")})
          .ok());
  EXPECT_EQ(*store_->ForgiveCrashes({crashed}), 1);
  EXPECT_TRUE(store_->FailQueued(id, absl::InternalError("x")).ok());
  EXPECT_TRUE(store_->DeleteAsset("one", "x").ok());
  EXPECT_TRUE(store_->Delete("one", id).ok());
  EXPECT_TRUE(store_->PurgeResults(absl::InfiniteFuture(), 10).ok());
  EXPECT_TRUE(store_->PurgeJobs(absl::InfiniteFuture(), 10).ok());
  store_.reset();
  sqlite3_cancel_auto_extension(hook);
  {
    absl::MutexLock lock(&statements_mutex);
    statements = nullptr;
  }

  // Small for good, or wanted whole.
  const std::set<std::string> allowed = {"SCAN CONSTANT ROW", "SCAN job_counts",
                                         "SCAN sqlite_sequence",
                                         "SCAN jobs USING INDEX running_jobs"};
  // What each of these has to be led by.
  std::map<std::string, std::string> leads = {
      {"SELECT id FROM jobs WHERE tenant = ? AND request_id = ?",
       "SEARCH jobs USING INDEX jobs_by_request_id (tenant=? AND request_id=?)"},
      {"state = 1 AND priority = ?", "SEARCH jobs USING INDEX queue_by_order (priority=?)"},
      {"WHERE jobs.state = 2", "SCAN jobs USING INDEX running_jobs"},
      {"FROM jobs WHERE id = ?", "SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"},
      {"UPDATE attempts SET forgiven", "SEARCH attempts USING PRIMARY KEY (job=? AND number=?)"}};
  auto db = Connection::Open(folder_.File("jobs.db"), SQLITE_OPEN_READWRITE, "");
  ASSERT_TRUE(db.ok()) << db.status();
  int explained = 0;
  for (const std::string& sql : seen) {
    if (!absl::StartsWith(sql, "SELECT") && !absl::StartsWith(sql, "UPDATE") &&
        !absl::StartsWith(sql, "DELETE")) {
      continue;
    }
    ++explained;
    auto plan = (*db)->PrepareOnce("EXPLAIN QUERY PLAN " + sql);
    ASSERT_TRUE(plan.ok()) << plan.status() << sql;
    const auto lead = std::find_if(leads.begin(), leads.end(), [&](const auto& known) {
      return absl::StrContains(sql, known.first);
    });
    bool is_first = true;
    while (*plan->Step()) {
      if (lead != leads.end() && is_first) {
        EXPECT_EQ(plan->Text(3), lead->second) << sql;
      }
      is_first = false;
      const std::string line = plan->Text(3);
      const bool is_first_few = line == "SCAN assets" && absl::EndsWith(sql, "LIMIT ?");
      EXPECT_TRUE(!absl::StartsWith(line, "SCAN") || allowed.contains(line) || is_first_few)
          << line << "\n"
          << sql;
      // The queue has indexes of its own; those of the lists hold all that ever ended.
      if (absl::StrContains(sql, "state = 1") || absl::StrContains(sql, "state = 2")) {
        EXPECT_FALSE(absl::StrContains(line, "INDEX jobs_by_")) << line << "\n" << sql;
      }
      EXPECT_FALSE(absl::StrContains(line, "TEMP B-TREE")) << line << "\n" << sql;
    }
    if (lead != leads.end()) leads.erase(lead);
  }
  for (const auto& [part, lead] : leads) ADD_FAILURE() << "was not run: " << part;
  EXPECT_GT(explained, 30);
}

}  // namespace
}  // namespace kino::scheduler
