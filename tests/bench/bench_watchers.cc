// What watchers cost a server and everybody else, over gRPC.
//
// bench_watchers --server HOST:PORT --pid FRONTEND [--waiting 10000] [--live 1000] [--stalled 200]
//                [--calls 2000] [--pace-ms 400]
//
// The server runs one worker that obeys prompts (build/bin/fake-worker in kino-worker's place;
// bench_queue.py starts both). First `waiting` watchers of as many queued jobs: what GetJob and
// SubmitJob take without them, beside them, and while the queue moves and each of them is told so.
// Then `live` watchers of one running job, which makes a piece every pace-ms: from its arrival at
// the first of them to its arrival at each, all reading, and with `stalled` that do not read.
// Memory and threads of the process FRONTEND are read from /proc. Prints one line of JSON.
#include <atomic>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "tests/bench/queue_client.h"

namespace kino::bench {
namespace {

constexpr int kWatchersOfAConnection = 500;
constexpr int kMoves = 8;  // of the queue
constexpr int kPieces = 40;
constexpr int64_t kPieceBytes = 20'000;
// Keeps the worker busy until it is cancelled.
constexpr char kBusy[] = "steps=1000000 step_ms=100";

// A figure of /proc/PID/status: VmRSS in KiB, Threads.
int64_t StatusOf(int pid, const std::string& name) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/status"));
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(name + ":", 0) == 0)
      return std::strtoll(line.c_str() + name.size() + 1, nullptr, 10);
  }
  Die(absl::StrCat("no ", name, " of process ", pid));
}

// Until it holds; a benchmark has no event to wait for.
void WaitFor(const char* what, const std::function<bool()>& holds) {
  const auto begin = Clock::now();
  while (!holds()) {
    if (MillisecondsSince(begin) > 120'000) Die(absl::StrCat("not within two minutes: ", what));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// One watch, until it is dropped. Reads on, or stops after its first event.
class Watch : public grpc::ClientReadReactor<v1::JobEvent> {
 public:
  Watch(v1::VideoService::Stub& videos, const std::string& id, bool is_stalled)
      : is_stalled_(is_stalled), arrivals_(kPieces) {
    v1::WatchJobRequest request;
    request.set_id(id);
    videos.async()->WatchJob(&context_, &request, this);
    StartRead(&event_);
    StartCall();
  }
  // Waits until the call is over.
  ~Watch() override {
    context_.TryCancel();
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&is_done_));
  }

  int events() const { return events_; }
  int place() const { return place_; }  // in the queue; -1: not told yet
  bool has_ended() const { return has_ended_; }
  bool is_stalled() const { return is_stalled_; }
  // When each piece's last byte had arrived. REQUIRES: has_ended.
  const std::vector<Clock::time_point>& arrivals() const { return arrivals_; }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    const int64_t before = bytes_;
    if (event_.has_video_chunk())
      bytes_ += static_cast<int64_t>(event_.video_chunk().data().size());
    for (int64_t piece = before / kPieceBytes; piece < bytes_ / kPieceBytes; ++piece)
      arrivals_[static_cast<size_t>(piece)] = Clock::now();
    if (event_.progress().has_queue_position()) place_ = event_.progress().queue_position();
    if (event_.has_finished()) has_ended_ = true;
    ++events_;
    if (!is_stalled_) StartRead(&event_);
  }
  void OnDone(const grpc::Status& /*status*/) override {
    absl::MutexLock lock(&mutex_);
    is_done_ = true;
  }

  const bool is_stalled_;
  grpc::ClientContext context_;
  v1::JobEvent event_;
  int64_t bytes_ = 0;
  std::vector<Clock::time_point> arrivals_;
  std::atomic<int> events_{0}, place_{-1};
  std::atomic<bool> has_ended_{false};
  absl::Mutex mutex_;
  bool is_done_ = false;
};

class Bench {
 public:
  Bench(std::string server, int pid) : server_(std::move(server)), pid_(pid) {
    videos_ = Connect(server_, 0);
  }

  void MeasureWaiting(int waiting, int calls);
  // `stalled` of the `watchers` do not read.
  void MeasureFanOut(const std::string& name, int watchers, int stalled, int pace_ms);

  std::string Json() const { return absl::StrCat("{", json_.substr(2), "}"); }

 private:
  void Put(const std::string& name, double value) {
    absl::StrAppend(&json_, ", \"", name, "\": ", value);
  }
  v1::VideoService::Stub& ConnectionOf(int watcher) {
    const auto number = static_cast<size_t>(watcher / kWatchersOfAConnection);
    while (connections_.size() <= number)
      connections_.push_back(Connect(server_, 1 + static_cast<int>(connections_.size())));
    return *connections_[number];
  }
  void Cancel(const v1::Job& job);
  // GetJob and SubmitJob in turn, as long as it `goes_on`.
  void TimeCalls(const std::string& name, const std::string& job,
                 const std::function<bool(int calls)>& goes_on);

  const std::string server_;
  const int pid_;
  std::unique_ptr<v1::VideoService::Stub> videos_;
  std::vector<std::unique_ptr<v1::VideoService::Stub>> connections_;
  std::string json_;
  int submitted_ = 0;
};

void Bench::Cancel(const v1::Job& job) {
  grpc::ClientContext context;
  v1::CancelJobRequest request;
  request.set_id(job.id());
  v1::Job cancelled;
  DieUnless(videos_->CancelJob(&context, request, &cancelled), "CancelJob failed");
}

void Bench::TimeCalls(const std::string& name, const std::string& job,
                      const std::function<bool(int calls)>& goes_on) {
  std::vector<double> gets, submits;
  for (int i = 0; goes_on(i); ++i) {
    grpc::ClientContext context;
    v1::GetJobRequest request;
    request.set_id(job);
    v1::Job found;
    const auto asked = Clock::now();
    DieUnless(videos_->GetJob(&context, request, &found), "GetJob failed");
    gets.push_back(MillisecondsSince(asked));
    const auto sent = Clock::now();
    Submit(*videos_, absl::StrCat("timed-", submitted_++), "steps=1");
    submits.push_back(MillisecondsSince(sent));
  }
  Put(name + "_get_p50_ms", Percentile(gets, 0.5));
  Put(name + "_get_p99_ms", Percentile(gets, 0.99));
  Put(name + "_submit_p50_ms", Percentile(submits, 0.5));
  Put(name + "_submit_p99_ms", Percentile(submits, 0.99));
}

void Bench::MeasureWaiting(int waiting, int calls) {
  // The worker is busy. That those which stand first are cancelled moves the others.
  const v1::Job running = Submit(*videos_, "busy", kBusy);
  std::vector<v1::Job> first;
  for (int i = 0; i < kMoves; ++i)
    first.push_back(Submit(*videos_, absl::StrCat("first-", i), "steps=1"));
  std::vector<std::string> ids;
  for (int i = 0; i < waiting; ++i)
    ids.push_back(Submit(*videos_, absl::StrCat("waiting-", i), "steps=1").id());
  const auto enough = [&](int done) { return done < calls; };
  TimeCalls("alone", ids[0], enough);
  const int64_t rss = StatusOf(pid_, "VmRSS"), threads = StatusOf(pid_, "Threads");
  std::vector<std::unique_ptr<Watch>> watches;
  for (int i = 0; i < waiting; ++i)
    watches.push_back(std::make_unique<Watch>(ConnectionOf(i), ids[static_cast<size_t>(i)],
                                              /*is_stalled=*/false));
  const auto all_are_told = [&](int ahead) {
    for (size_t i = 0; i < watches.size(); ++i)
      if (watches[i]->place() != static_cast<int>(i) + ahead) return false;
    return true;
  };
  WaitFor("every watcher knows its place", [&] { return all_are_told(kMoves); });
  TimeCalls("beside", ids[0], enough);
  Put("bytes_of_a_watcher", 1024.0 * static_cast<double>(StatusOf(pid_, "VmRSS") - rss) / waiting);
  Put("threads_alone", static_cast<double>(threads));
  Put("threads_beside", static_cast<double>(StatusOf(pid_, "Threads")));

  std::atomic<bool> is_moving{true};
  double told_ms = 0;
  std::thread moves([&] {
    for (int ahead = kMoves; ahead-- > 0;) {
      const auto moved = Clock::now();
      Cancel(first[static_cast<size_t>(ahead)]);
      WaitFor("every watcher hears that it has moved up", [&] { return all_are_told(ahead); });
      told_ms = std::max(told_ms, MillisecondsSince(moved));
    }
    is_moving = false;
  });
  TimeCalls("moving", ids[0], [&](int /*done*/) { return is_moving.load(); });
  moves.join();
  Put("all_told_ms", told_ms);
  watches.clear();
  grpc::ClientContext last_context;
  v1::CancelJobsRequest everything;
  everything.add_states(v1::QUEUED);
  everything.add_states(v1::RUNNING);
  v1::CancelJobsResponse answer;
  DieUnless(videos_->CancelJobs(&last_context, everything, &answer), "CancelJobs failed");
  WaitFor("the worker is free", [&] {
    grpc::ClientContext get_context;
    v1::GetJobRequest get;
    get.set_id(running.id());
    v1::Job job;
    DieUnless(videos_->GetJob(&get_context, get, &job), "GetJob failed");
    return job.state() == v1::CANCELLED;
  });
}

void Bench::MeasureFanOut(const std::string& name, int watchers, int stalled, int pace_ms) {
  const v1::Job blocker = Submit(*videos_, name + "-busy", kBusy);
  const v1::Job job = Submit(
      *videos_, name,
      absl::StrCat("steps=1 step_ms=", pace_ms, " chunks=", kPieces, " chunk_bytes=", kPieceBytes));
  const int64_t before = StatusOf(pid_, "VmRSS");
  std::vector<std::unique_ptr<Watch>> watches;
  for (int i = 0; i < watchers; ++i)
    watches.push_back(std::make_unique<Watch>(ConnectionOf(i), job.id(), i < stalled));
  WaitFor("all watch", [&] {
    return std::all_of(watches.begin(), watches.end(),
                       [](const auto& watch) { return watch->events() > 0; });
  });
  Cancel(blocker);
  int64_t most = before;
  WaitFor("all that read have the video", [&] {
    most = std::max(most, StatusOf(pid_, "VmRSS"));
    return std::all_of(watches.begin(), watches.end(),
                       [](const auto& watch) { return watch->is_stalled() || watch->has_ended(); });
  });
  std::vector<double> late;
  for (size_t piece = 0; piece < kPieces; ++piece) {
    auto first = Clock::time_point::max();
    for (const auto& watch : watches)
      if (!watch->is_stalled()) first = std::min(first, watch->arrivals()[piece]);
    for (const auto& watch : watches)
      if (!watch->is_stalled())
        late.push_back(
            std::chrono::duration<double, std::milli>(watch->arrivals()[piece] - first).count());
  }
  Put(name + "_p50_ms", Percentile(late, 0.5));
  Put(name + "_p99_ms", Percentile(late, 0.99));
  Put(name + "_more_mib", static_cast<double>(most - before) / 1024);
  Put(name + "_threads", static_cast<double>(StatusOf(pid_, "Threads")));
}

int Main(int argc, char** argv) {
  std::string server;
  int pid = 0, waiting = 10'000, live = 1000, stalled = 200, calls = 2000, pace_ms = 400;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--server") server = argv[i + 1];
    if (name == "--pid") pid = std::atoi(argv[i + 1]);
    if (name == "--waiting") waiting = std::atoi(argv[i + 1]);
    if (name == "--live") live = std::atoi(argv[i + 1]);
    if (name == "--stalled") stalled = std::atoi(argv[i + 1]);
    if (name == "--calls") calls = std::atoi(argv[i + 1]);
    if (name == "--pace-ms") pace_ms = std::atoi(argv[i + 1]);
  }
  if (server.empty() || pid == 0) Die("--server and --pid are needed");
  Bench bench(server, pid);
  bench.MeasureWaiting(waiting, calls);
  bench.MeasureFanOut("all_live", live, 0, pace_ms);
  bench.MeasureFanOut("some_stalled", live, stalled, pace_ms);
  std::printf("%s\n", bench.Json().c_str());
  return 0;
}

}  // namespace
}  // namespace kino::bench

int main(int argc, char** argv) { return kino::bench::Main(argc, argv); }
