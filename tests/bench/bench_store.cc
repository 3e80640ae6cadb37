// How the job store fares with a long history and a deep queue: makes such a file, then times the
// calls that a server makes on it.
//
// bench_store [--folder DIR] [--queued N] [--ended N] [--rounds N] [--seed N] [--keep]
//
// Makes DIR/jobs.db unless it is there (--keep leaves it for the next run), prints a line per call:
// number, median, 99th percentile and maximum in milliseconds. The fsyncs are real: put DIR on the
// disk that is meant.
#include <sqlite3.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "scheduler/clock.h"
#include "scheduler/queue/job_queue.h"
#include "scheduler/queue/policy.h"
#include "scheduler/random.h"
#include "scheduler/store/sqlite/database.h"
#include "scheduler/store/sqlite/open.h"
#include "scheduler/store/sqlite/schema.h"
#include "tests/support/seeded_random.h"

namespace kino::scheduler {
namespace {

struct Options {
  std::string folder = "/tmp/kino-bench-store";
  int64_t queued = 100'000, ended = 1'000'000;
  int rounds = 200;
  uint64_t seed = 1;
  bool is_kept = false;
};

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}
void Check(const absl::Status& status) {
  if (!status.ok()) Die(status.ToString());
}

constexpr const char* kModels[] = {"ltx", "mochi", "wan", "rare"};

std::string IdOf(int64_t seq) { return absl::StrFormat("%026d", seq); }

// Jobs as a server leaves them. Nine of ten belong to one tenant; one model and one label are rare;
// "even" and "odd" never meet on a job.
void Fill(const std::string& path, const Options& options) {
  auto opened = Connection::Open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "");
  Check(opened.status());
  Connection& db = **opened;
  Check(db.Execute(
      "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -400000"));
  Check(MigrateSchema(db));
  SeededRandom random(options.seed);
  const int64_t total = options.queued + options.ended;
  const int64_t now_us = absl::ToUnixMicros(absl::Now());
  const std::string request(600, 'p'), stats(400, 's');
  Check(db.Execute("BEGIN"));
  for (int64_t seq = 1; seq <= total; ++seq) {
    // The queue is the youngest part, but for some old ones that wait.
    const bool is_queued =
        seq > options.ended || (seq % 1000 == 7 && seq < options.queued / 10 * 1000);
    const uint64_t dice = random.Next();
    const std::string tenant =
        dice % 10 == 0 ? absl::StrCat("tenant-", dice / 10 % 100) : "default";
    const std::string model = dice / 1000 % 5000 == 0 ? kModels[3] : kModels[dice / 1000 % 3];
    const int priority = 1 + static_cast<int>(dice / 7 % 3);
    const int state = is_queued ? 1
                      : dice / 11 % 100 < 90
                          ? 3
                          : (dice / 11 % 100 < 97 ? 4 : (dice / 11 % 100 < 99 ? 5 : 7));
    const int64_t create = now_us - (total - seq) * 1'000'000;
    const int64_t end = is_queued ? 0 : create + 600'000'000;  // 0 and "" become NULL
    const std::string file = state == 3 ? IdOf(seq) + ".1.mp4" : "";
    const std::string none;
    Check(db.Run("INSERT INTO jobs(id, tenant, model, priority, request_id, fingerprint, "
                 "server_version, create_us, state, state_number, attempt, token, "
                 "cancel_requested, start_us, end_us, crashes, out_of_memory, interruptions, "
                 "error_code, error_message, artifact_file, artifact_type, artifact_bytes, "
                 "artifact_sha256, artifact_width, artifact_height, artifact_frames, artifact_fps, "
                 "artifact_purged, stats) VALUES (?, ?, ?, ?, ?, ?, '0.1.0', ?, ?, ?, ?, '', 0, "
                 "nullif(?, 0), nullif(?, 0), 0, 0, 0, 0, '', nullif(?, ''), 'video/mp4', 5000000, "
                 "?, 768, 512, 121, 24.0, 0, ?)",
                 IdOf(seq), tenant, model, priority, absl::StrCat("request-", seq),
                 Blob{std::string(32, 'f')}, create, state, is_queued ? 1 : 3, is_queued ? 0 : 1,
                 end, end, file, std::string(64, 'a'), Blob{is_queued ? none : stats})
              .status());
    Check(db.Run("INSERT INTO requests(job, request) VALUES (?, ?)", seq, Blob{request}).status());
    const std::string even = "parity", value = seq % 2 == 0 ? "even" : "odd";
    Check(db.Run("INSERT INTO labels(job, key, value, tenant) VALUES (?, ?, ?, ?)", seq, even,
                 value, tenant)
              .status());
    if (seq % 2 == 0 || seq % 100'000 == 1) {
      const std::string key = "half", yes = "yes";
      Check(db.Run("INSERT INTO labels(job, key, value, tenant) VALUES (?, ?, ?, ?)", seq, key, yes,
                   tenant)
                .status());
    }
    const int events = is_queued ? 1 : 3;
    for (int number = 1; number <= events; ++number) {
      Check(db.Run("INSERT INTO events(job, number, state, attempt, time_us, reason) "
                   "VALUES (?, ?, ?, ?, ?, '')",
                   seq, number, number == 1 ? 1 : (number == 2 ? 2 : state), number == 1 ? 0 : 1,
                   create)
                .status());
    }
    if (!is_queued) {
      Check(db.Run("INSERT INTO attempts(job, number, token, worker, start_us, end_us, cause, "
                   "error_code, error_message) VALUES (?, 1, ?, 'worker-0', ?, ?, 0, 0, '')",
                   seq, std::string(32, 't'), create, end)
                .status());
    }
    if (seq % 20'000 == 0) Check(db.Execute("COMMIT; BEGIN"));
  }
  Check(db.Execute("COMMIT"));
  Check(db.Run("INSERT OR IGNORE INTO marks(name) VALUES ('closed')").status());
  Check(db.Execute("PRAGMA wal_checkpoint(TRUNCATE)"));
}

int64_t PeakMegabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}
int64_t ResidentMegabytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0;
  statm >> pages >> pages;
  return pages * getpagesize() / (1 << 20);
}

void Time(const std::string& name, int rounds, const std::function<void(int)>& call) {
  std::vector<double> took;
  for (int i = 0; i < rounds; ++i) {
    const absl::Time begin = absl::Now();
    call(i);
    took.push_back(absl::ToDoubleMilliseconds(absl::Now() - begin));
  }
  std::sort(took.begin(), took.end());
  absl::PrintF("%-58s %6d %9.3f %9.3f %9.3f\n", name, rounds, took[took.size() / 2],
               took[std::min(took.size() - 1, took.size() * 99 / 100)], took.back());
}

void TimeLists(JobStore& store, int rounds) {
  const std::vector<std::pair<std::string, JobFilter>> filters = {
      {"all", {}},
      {"tenant", {.tenant = "default"}},
      {"small tenant", {.tenant = "tenant-7"}},
      {"tenant, QUEUED", {.tenant = "default", .states = {JobState::kQueued}}},
      {"tenant, QUARANTINED (none)", {.tenant = "default", .states = {JobState::kQuarantined}}},
      {"tenant, FAILED or CANCELLED",
       {.tenant = "default", .states = {JobState::kFailed, JobState::kCancelled}}},
      {"tenant, rare model", {.tenant = "default", .model = "rare"}},
      {"tenant, rare model, EXPIRED",
       {.tenant = "default", .states = {JobState::kExpired}, .model = "rare"}},
      {"rare model", {.model = "rare"}},
      {"QUARANTINED (none)", {.states = {JobState::kQuarantined}}},
      {"tenant, label on half", {.tenant = "default", .labels = {{"half", "yes"}}}},
      {"tenant, label on none", {.tenant = "default", .labels = {{"half", "no"}}}},
      {"tenant, two labels that hardly meet",
       {.tenant = "default", .labels = {{"half", "yes"}, {"parity", "odd"}}}},
      {"tenant, label on half, rare model",
       {.tenant = "default", .model = "rare", .labels = {{"half", "yes"}}}},
      {"small tenant, label on half, EXPIRED",
       {.tenant = "tenant-7", .states = {JobState::kExpired}, .labels = {{"half", "yes"}}}},
      {"no tenant, label on none", {.labels = {{"half", "no"}}}},
  };
  for (const int page_size : {50, 1000}) {
    for (const auto& [name, filter] : filters) {
      // Each round asks for the page behind the last one's, so that deep pages are among them.
      std::string token;
      Time(absl::StrCat("List ", page_size, ": ", name), std::max(5, rounds / 10), [&](int) {
        const auto page = store.List(filter, page_size, token, 16 << 20);
        Check(page.status());
        token = page->next_page_token;
      });
    }
  }
}

void Run(const Options& options) {
  std::filesystem::create_directories(options.folder);
  const std::string path = options.folder + "/jobs.db";
  absl::PrintF("%d queued and %d ended jobs, seed %d\n", options.queued, options.ended,
               options.seed);
  if (!std::filesystem::exists(path)) {
    const absl::Time begin = absl::Now();
    Fill(path, options);
    absl::PrintF("file made in %.1f s\n", absl::ToDoubleSeconds(absl::Now() - begin));
  }
  absl::PrintF("file: %d MiB; resident before the store opens: %d MiB\n",
               std::filesystem::file_size(path) >> 20, ResidentMegabytes());
  absl::PrintF("%-58s %6s %9s %9s %9s\n", "milliseconds", "calls", "median", "p99", "max");

  SystemClock clock;
  SystemRandom random;
  std::unique_ptr<JobStore> store;
  Time("open", 1, [&](int) {
    auto opened = OpenSqliteJobStore({.path = path}, {.admission = {.max_queued_jobs = 10'000'000}},
                                     clock, random);
    Check(opened.status());
    store = *std::move(opened);
  });
  Time("RunningAttempts", 1, [&](int) { Check(store->RunningAttempts().status()); });
  Time("FindLeftOverFiles, 1000 names", 20, [&](int i) {
    std::vector<std::string> names;
    for (int n = 0; n < 1000; ++n) names.push_back(IdOf(i * 1000 + n) + ".1.mp4");
    Check(store->FindLeftOverFiles(names).status());
  });
  TimeLists(*store, options.rounds);
  Time("Load", options.rounds, [&](int) { Check(store->Load().status()); });
  Time("FindByRequestId", options.rounds, [&](int i) {
    Check(store->FindByRequestId("default", absl::StrCat("request-", i * 1000 + 1)).status());
  });
  std::vector<QueuedJob> jobs;
  Time("Queue", 5, [&](int) {
    auto queue = store->Queue();
    Check(queue.status());
    jobs = *std::move(queue);
  });
  JobQueue queue(clock, RetryPolicy().max_backoff);
  Time(absl::StrCat("JobQueue: ", jobs.size(), " jobs added"), 1, [&](int) {
    for (const QueuedJob& job : jobs) queue.Add(job);
  });

  NewJob job;
  job.tenant = "default";
  job.model = "ltx";
  job.request = std::string(600, 'p');
  job.request_fingerprint = "f";
  job.server_version = "0.1.0";
  job.labels = {{"half", "yes"}};
  Time("Submit", options.rounds, [&](int) { Check(store->Submit(job).status()); });
  ReadyWorker worker{.name = "worker-0", .models = {"ltx", "mochi", "wan", "rare"}};
  const auto next = [&] {
    const QueueSnapshot heads = queue.Heads({worker});
    const std::optional<Choice> choice = PickNext(heads, {worker});
    return choice ? heads.jobs[choice->job].id : std::string();
  };
  Time("JobQueue: Heads and PickNext", options.rounds, [&](int) { next(); });
  // The first ones of the queue do not fit the worker, as many as it may remember.
  for (size_t i = 0; i < jobs.size() && i < 1000; ++i) worker.unfit_jobs.insert(jobs[i].id);
  Time(absl::StrCat("JobQueue: Heads and PickNext, ", worker.unfit_jobs.size(), " unfit"),
       options.rounds, [&](int) { next(); });
  worker.unfit_jobs.clear();
  Time("JobQueue: InOrder", 5, [&](int) {
    if (queue.InOrder().size() != jobs.size()) Die("the queue has lost jobs");
  });
  std::vector<std::string> ids;
  for (int i = 0; i < options.rounds; ++i) {
    ids.push_back(next());
    if (ids.back().empty()) Die("fewer jobs are queued than there are rounds");
    queue.Remove(ids.back());
  }
  std::vector<AttemptRef> refs;
  Time("Claim", options.rounds, [&](int i) {
    const auto claim = store->Claim(ids[static_cast<size_t>(i)], worker.name);
    Check(claim.status());
    if (claim->has_value()) refs.push_back((*claim)->ref);
  });
  Time("Commit", static_cast<int>(refs.size()), [&](int i) {
    const AttemptRef& ref = refs[static_cast<size_t>(i)];
    Check(store->Commit(ref, {.file_name = ref.job_id + ".1.mp4"}, std::string(400, 's')).status());
  });
  Time("Expire", options.rounds, [&](int i) {
    Check(store->Expire(jobs[jobs.size() - 1 - static_cast<size_t>(i)].id).status());
  });
  Time("Requeue", options.rounds, [&](int i) {
    // Of whatever tenant.
    const auto expired = store->GetAnyTenant(jobs[jobs.size() - 1 - static_cast<size_t>(i)].id);
    Check(expired.status());
    Check(store->Requeue(expired->tenant, expired->id).status());
  });
  Time("PurgeResults of 100", 10,
       [&](int) { Check(store->PurgeResults(absl::Now() - absl::Hours(24), 100).status()); });
  Time("PurgeJobs of 100", 10,
       [&](int) { Check(store->PurgeJobs(absl::Now() - absl::Hours(24), 100).status()); });
  absl::PrintF("resident: %d MiB, at most: %d MiB\n", ResidentMegabytes(), PeakMegabytes());
  Time("close", 1, [&](int) { store.reset(); });
  if (!options.is_kept) std::filesystem::remove_all(options.folder);
}

}  // namespace
}  // namespace kino::scheduler

int main(int argc, char** argv) {
  kino::scheduler::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&] {
      if (++i == argc) kino::scheduler::Die(name + " needs a value");
      return std::string(argv[i]);
    };
    if (name == "--folder") {
      options.folder = value();
    } else if (name == "--queued") {
      options.queued = std::stoll(value());
    } else if (name == "--ended") {
      options.ended = std::stoll(value());
    } else if (name == "--rounds") {
      options.rounds = std::stoi(value());
    } else if (name == "--seed") {
      options.seed = std::stoull(value());
    } else if (name == "--keep") {
      options.is_kept = true;
    } else {
      kino::scheduler::Die("unknown option " + name);
    }
  }
  kino::scheduler::Run(options);
}
