// The scheduler's core under a virtual clock: the real registry, queue, policy and dispatcher, with
// a store in memory and with workers that come, go, die, hang and come back, driven by a seeded
// random source through many job lifecycles. What a frontend does around the core is written here
// in its simplest form.
//
// KINO_SCHEDULER_LIFECYCLES=1000000 runs that many instead of some ten thousand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "scheduler/status.h"
#include "scheduler/workers/dispatcher.h"
#include "tests/support/fake_clock.h"
#include "tests/support/manual_strand.h"
#include "tests/support/memory_job_store.h"
#include "tests/support/seeded_random.h"

namespace kino::scheduler {
namespace {

constexpr int kStageRun = 2;
const char* const kModels[] = {"a", "b", "c"};

std::string Name(const AttemptRef& ref) { return absl::StrCat(ref.job_id, "/", ref.attempt); }

// A worker process as it is, whatever the scheduler thinks of it.
struct SimWorker {
  struct Run {
    AttemptRef ref;
    AttemptPulse pulse;
    bool has_begun = false;
    bool is_ending = false;  // its result is under way in this session
  };
  struct Message {
    enum { kStart, kStop, kDrop } what;
    AttemptRef ref;
  };
  std::string name;
  std::string device;
  int size = 1;  // jobs up to this size fit
  int slots = 1;
  std::set<std::string> models;
  std::set<std::string> loaded;
  int64_t process_id = 0;  // 0: not running
  SessionId session = 0;   // 0: not connected
  bool is_hung = false;    // its attempts stand still
  bool is_mute = false;    // nothing is heard of it
  absl::Duration last_beat;
  int64_t counter = 0;
  std::vector<Run> runs;
  std::deque<Message> inbox;  // on the wire
};

class World {
 public:
  // With `sets_wall_clock` the wall clock is set now and then; nothing else differs.
  World(uint64_t seed, bool sets_wall_clock)
      : random_(seed), sets_wall_clock_(sets_wall_clock), store_(RetryPolicy(), clock_, tokens_) {
    store_.Defer();
    store_.AddChangeListener([this](const std::vector<Change>& changes) {
      for (const Change& change : changes) {
        if (IsTerminal(change.event.state)) {
          ended_.push_back(change.job_id);
          ++seen_[JobStateName(change.event.state)];
        }
        if (keeps_trace_) {
          trace_.push_back(absl::StrCat(change.job_id, " ", JobStateName(change.event.state), " ",
                                        change.event.attempt, " ", change.event.reason));
        }
      }
      strand_->Post([this, changes] {
        for (const Change& change : changes) dispatcher_->OnChange(change);
      });
    });
    for (int i = 0; i < 6; ++i) {
      SimWorker& worker = workers_.emplace_back();
      worker.name = absl::StrCat("w", i);
      worker.device = absl::StrCat("device", i / 2);
      worker.size = 1 + i / 2;
      worker.slots = 1 + i % 3;
      worker.models = {kModels[i % 3], kModels[(i + 1) % 3]};
    }
    BeginFrontend();
  }
  ~World() {
    dispatcher_->Stop();
    strand_->End();
  }

  void KeepTrace() { keeps_trace_ = true; }
  const std::vector<std::string>& trace() const { return trace_; }
  int lifecycles() const { return lifecycles_; }
  // How often what happened.
  const std::map<std::string, int>& seen() const { return seen_; }

  // Until so many jobs have ended and were deleted; then everything that waits comes to its end.
  void Run(int lifecycles) {
    while (lifecycles_ < lifecycles && !testing::Test::HasFailure()) {
      Happen();
      CheckAlways();
    }
    if (!testing::Test::HasFailure()) Drain();
  }

 private:
  uint64_t Below(uint64_t limit) { return random_.Next() % limit; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  SimWorker& AnyWorker() { return workers_[Below(workers_.size())]; }

  // --- The frontend: what surrounds the core. ---

  void BeginFrontend() {
    strand_ = std::make_shared<ManualStrand>();
    registry_ = std::make_unique<WorkerRegistry>(options_, clock_);
    queue_ = std::make_unique<JobQueue>(clock_, RetryPolicy().max_backoff);
    dispatcher_ = std::make_unique<Dispatcher>(
        store_, *registry_, *queue_,
        [strand = strand_](absl::AnyInvocable<void()> task) { strand->Post(std::move(task)); },
        [this](const Reservation& reservation, ClaimedAttempt claimed,
               const absl::Status& assigned) { Start(reservation, claimed, assigned); },
        [this](const Reservation& reservation, const QueuedJob& job,
               std::function<void(Verdict)> done) {
          questions_.push_back({.job_id = job.id,
                                .worker = reservation.worker.name,
                                .session = reservation.session,
                                .done = std::move(done)});
          if (OneIn(2)) AnswerQuestion(questions_.size() - 1);
        },
        [](const std::string& message) { ADD_FAILURE() << message; });
    registry_->Adopt(*store_.RunningAttempts());
    const auto queue = store_.Queue();
    ASSERT_TRUE(queue.ok()) << queue.status();
    for (const QueuedJob& job : *queue) queue_->Add(job);
  }
  // The process is replaced by a new one; the store and the workers stay.
  void RestartFrontend() {
    ++seen_["restart"];
    dispatcher_->Stop();
    while (store_.CarryOutOne()) {
    }
    strand_->End();
    questions_.clear();
    being_claimed_.clear();
    ending_.clear();
    hold_.clear();
    for (SimWorker& worker : workers_) {
      worker.session = 0;
      worker.inbox.clear();
    }
    BeginFrontend();
    Tick();
  }

  void Start(const Reservation& reservation, const ClaimedAttempt& claimed,
             const absl::Status& assigned) {
    being_claimed_.erase(claimed.ref.job_id);
    if (keeps_trace_) {
      trace_.push_back(absl::StrCat(Name(claimed.ref), " on ", reservation.worker.name));
    }
    if (!assigned.ok()) {
      ++seen_["claimed for a worker that had gone"];
      return End(claimed.ref, FailureCause::kInterrupted, "the worker has gone");
    }
    for (SimWorker& worker : workers_) {
      if (worker.session != reservation.session) continue;
      worker.inbox.push_back({SimWorker::Message::kStart, claimed.ref});
    }
  }

  // Ends an attempt in the store; on the strand, what follows.
  void End(const AttemptRef& ref, FailureCause cause, const std::string& reason) {
    ending_.insert(Name(ref));
    store_.Fail(ref, {.cause = cause, .error = absl::InternalError(reason)},
                [this, ref](const absl::StatusOr<Job>& job) { Ended(ref, job.status()); });
  }
  void Commit(const AttemptRef& ref) {
    ending_.insert(Name(ref));
    store_.Commit(ref, {.file_name = "f"}, "",
                  [this, ref](const absl::StatusOr<Job>& job) { Ended(ref, job.status()); });
  }
  void Ended(const AttemptRef& ref, const absl::Status& status) {
    EXPECT_TRUE(status.ok() || IsStaleAttempt(status)) << status;
    strand_->Post([this, ref] {
      ending_.erase(ending_.find(Name(ref)));
      registry_->Release(ref);
      for (SimWorker& worker : workers_) {  // told so, where it is connected
        if (worker.session == 0) continue;
        std::erase_if(worker.runs, [&](const SimWorker::Run& run) { return run.ref == ref; });
      }
      dispatcher_->Pump();
    });
  }
  void Lose(const std::vector<LostAttempt>& lost) {
    for (const LostAttempt& attempt : lost) {
      ++seen_[absl::StrCat("lost: ", FailureCauseName(attempt.cause))];
      End(attempt.ref, attempt.cause, attempt.reason);
      for (SimWorker& worker : workers_) {
        if (attempt.session != 0 && worker.session == attempt.session) {
          worker.inbox.push_back({SimWorker::Message::kDrop, attempt.ref});
        }
      }
    }
  }
  // What a timer does, twice a second and whenever something is due.
  void Tick() {
    Lose(registry_->TakeLost());
    for (const std::string& id : queue_->TakeOverdue()) store_.Expire(id, [](const auto&) {});
    dispatcher_->Pump();
  }
  void Hello(SimWorker& worker) {
    std::vector<AttemptRef> held;
    for (SimWorker::Run& run : worker.runs) {
      held.push_back(run.ref);
      run.is_ending = false;
    }
    std::vector<WorkerModel> models;
    for (const std::string& model : worker.models) {
      models.push_back({model, worker.loaded.contains(model)});
    }
    worker.inbox.clear();
    const auto hello = registry_->Hello({.name = worker.name,
                                         .process_id = worker.process_id,
                                         .device = worker.device,
                                         .max_attempts = worker.slots,
                                         .models = models,
                                         .held = held});
    ASSERT_TRUE(hello.ok()) << hello.status();
    worker.session = hello->session;
    worker.last_beat = clock_.Monotonic();
    std::erase_if(worker.runs, [&](const SimWorker::Run& run) {
      return std::count(hello->dropped.begin(), hello->dropped.end(), run.ref) > 0;
    });
    EXPECT_EQ(worker.runs.size(), hello->resumed.size());
    seen_["dropped"] += static_cast<int>(hello->dropped.size());
    for (const AttemptRef& ref : hello->resumed) {
      ++seen_["resumed"];
      const auto job = store_.GetAnyTenant(ref.job_id);
      if (job.ok() && job->cancel_requested) {
        worker.inbox.push_back({SimWorker::Message::kStop, ref});
      }
    }
    Lose(hello->lost);
    dispatcher_->Pump();
  }
  void Disconnect(SimWorker& worker) {
    registry_->Disconnected(worker.session);
    worker.session = 0;
    worker.inbox.clear();
    dispatcher_->Pump();
  }
  void Kill(SimWorker& worker) {
    const int64_t process_id = std::exchange(worker.process_id, 0);
    worker.runs.clear();
    worker.loaded.clear();
    worker.is_hung = worker.is_mute = false;
    if (worker.session != 0) Disconnect(worker);
    if (OneIn(2)) {
      Lose(registry_->WorkerEnded(worker.name, process_id, FailureCause::kCrash, "killed"));
      dispatcher_->Pump();
    }
  }
  void Beat(SimWorker& worker) {
    if (worker.process_id == 0 || worker.session == 0 || worker.is_mute) return;
    if (clock_.Monotonic() - worker.last_beat < absl::Seconds(2)) return;
    worker.last_beat = clock_.Monotonic();
    if (!worker.is_hung) ++worker.counter;
    std::vector<AttemptPulse> pulses;
    for (SimWorker::Run& run : worker.runs) {
      if (!worker.is_hung) {
        ++run.pulse.counter;
        if (run.pulse.stage != kStageRun && OneIn(2)) ++run.pulse.stage;
        if (run.pulse.stage == kStageRun) {
          ++run.pulse.steps;
          run.pulse.usual_step = absl::Seconds(1);
          if (!run.has_begun) registry_->Begun(run.ref);
          run.has_begun = true;
        }
      }
      pulses.push_back(run.pulse);
    }
    std::vector<WorkerModel> models;
    for (const std::string& model : worker.models) {
      models.push_back({model, worker.loaded.contains(model)});
    }
    // Refused: this process was given up; it connects anew later.
    if (!registry_->Heartbeat(worker.session, worker.counter, pulses, models).ok()) {
      worker.session = 0;
      worker.inbox.clear();
    }
  }
  void Deliver(SimWorker& worker) {
    if (worker.inbox.empty() || worker.is_mute) return;
    const SimWorker::Message message = worker.inbox.front();
    worker.inbox.pop_front();
    const auto run = std::find_if(worker.runs.begin(), worker.runs.end(),
                                  [&](const auto& r) { return r.ref == message.ref; });
    switch (message.what) {
      case SimWorker::Message::kStart:
        worker.runs.push_back({.ref = message.ref, .pulse = {.ref = message.ref}});
        worker.loaded = {*worker.models.begin()};
        break;
      case SimWorker::Message::kStop:
        if (run == worker.runs.end() || run->is_ending) return;
        run->is_ending = true;
        End(run->ref, FailureCause::kCancelled, "stopped");
        break;
      case SimWorker::Message::kDrop:
        if (run != worker.runs.end()) worker.runs.erase(run);
        break;
    }
  }
  void Finish(SimWorker& worker) {
    if (worker.session == 0 || worker.is_hung || worker.is_mute || worker.runs.empty()) return;
    SimWorker::Run& run = worker.runs[Below(worker.runs.size())];
    if (run.is_ending) return;
    run.is_ending = true;
    constexpr FailureCause kCauses[] = {FailureCause::kInternal,   FailureCause::kOutOfMemory,
                                        FailureCause::kClient,     FailureCause::kInterrupted,
                                        FailureCause::kDiskFull,   FailureCause::kDeviceLost,
                                        FailureCause::kRunTimeout, FailureCause::kModel};
    if (OneIn(3)) {
      End(run.ref, kCauses[Below(std::size(kCauses))], "it broke");
    } else {
      Commit(run.ref);
    }
  }

  // --- Judging: a job fits a worker that is large enough. ---

  int SizeOf(const std::string& job_id) const {
    return 1 + (job_id.back() - '0') % 4;  // 4: for nobody
  }
  void AnswerQuestion(size_t i) {
    const Question question = questions_[i];
    questions_.erase(questions_.begin() + static_cast<ptrdiff_t>(i));
    const auto job = store_.GetAnyTenant(question.job_id);
    const std::string model = job.ok() ? job->model : "";
    bool fits = false, fits_elsewhere = false;
    for (const WorkerSnapshot& known : registry_->Snapshot()) {
      for (const SimWorker& worker : workers_) {
        if (worker.name != known.name || worker.size < SizeOf(question.job_id)) continue;
        if (!worker.models.contains(model)) continue;
        (worker.name == question.worker ? fits : fits_elsewhere) = true;
      }
    }
    Verdict verdict{.fit = fits             ? Fit::kHere
                           : fits_elsewhere ? Fit::kElsewhere
                                            : Fit::kNowhere,
                    .error = {}};
    ++seen_[absl::StrCat("fit ", static_cast<int>(verdict.fit))];
    if (fits) being_claimed_.insert(question.job_id);
    question.done(verdict);
    if (OneIn(10)) question.done(verdict);
  }

  // --- What may happen. ---

  void Submit() {
    if (store_.records().size() > 60) return;
    NewJob job;
    job.id = absl::StrCat("job", ++submitted_);
    job.tenant = "t";
    job.model = kModels[Below(3)];
    job.priority = static_cast<Priority>(1 + Below(3));
    if (OneIn(4)) job.start_timeout = absl::Seconds(static_cast<int64_t>(1 + Below(60)));
    if (OneIn(4)) job.run_timeout = absl::Seconds(static_cast<int64_t>(1 + Below(30)));
    store_.Submit(job, [](const auto& submitted) { EXPECT_TRUE(submitted.ok()); });
  }
  void Cancel() {
    if (store_.records().empty()) return;
    auto record = store_.records().begin();
    std::advance(record, Below(store_.records().size()));
    store_.Cancel("t", record->first, [this](const absl::StatusOr<Job>& job) {
      if (!job.ok() || job->state != JobState::kRunning) return;
      const AttemptRef ref{job->id, job->attempts.back().number, job->attempts.back().token};
      strand_->Post([this, ref] {
        const auto session = registry_->Holder(ref);
        for (SimWorker& worker : workers_) {
          if (session.ok() && worker.session == *session) {
            worker.inbox.push_back({SimWorker::Message::kStop, ref});
          }
        }
      });
    });
  }
  // Ended jobs are looked at once more: some run again, the others are deleted.
  void Sweep() {
    for (const std::string& id : std::exchange(ended_, {})) {
      const auto job = store_.GetAnyTenant(id);
      if (!job.ok() || !IsTerminal(job->state)) continue;
      if (OneIn(30)) {
        store_.Requeue("t", id, [this, id](const auto& requeued) {
          if (!requeued.ok()) ended_.push_back(id);
          if (requeued.ok()) ++seen_["requeued"];
        });
      } else if (OneIn(10)) {
        std::vector<AttemptRef> refs;
        for (const Attempt& attempt : job->attempts) {
          refs.push_back({id, attempt.number, attempt.token});
        }
        store_.ForgiveCrashes(
            refs, [this](const absl::StatusOr<int>& forgiven) { seen_["forgiven"] += *forgiven; });
        ended_.push_back(id);
      } else {
        store_.Delete("t", id, [this](const absl::StatusOr<std::string>& deleted) {
          if (deleted.ok()) ++lifecycles_;
        });
      }
    }
  }
  void PassTime(absl::Duration duration) {
    clock_.Advance(duration);
    Tick();
    for (SimWorker& worker : workers_) Beat(worker);
  }
  void Settle() {
    while (strand_->RunOne() || store_.CarryOutOne()) {
    }
  }

  void Happen() {
    const uint64_t what = Below(1000);
    SimWorker& worker = AnyWorker();
    if (what < 150) {
      Submit();
    } else if (what < 350) {
      PassTime(absl::Milliseconds(static_cast<int64_t>(10 + Below(490))));
    } else if (what < 500) {
      Deliver(worker);
    } else if (what < 620) {
      Finish(worker);
    } else if (what < 700) {
      strand_->RunOne();
    } else if (what < 760) {
      store_.CarryOutOne();
    } else if (what < 840) {
      if (!questions_.empty()) AnswerQuestion(Below(questions_.size()));
    } else if (what < 920) {
      Settle();
      CheckQuiet();
    } else if (what < 930) {
      Sweep();
    } else if (what < 945) {
      Cancel();
    } else if (what < 975) {
      if (worker.process_id == 0) {
        worker.process_id = ++last_process_;
      } else if (worker.session == 0) {
        Hello(worker);
      }
    } else if (what < 980) {
      if (worker.session != 0) Disconnect(worker);
    } else if (what < 982) {
      if (worker.process_id != 0) Kill(worker);
    } else if (what < 984) {
      worker.is_hung = OneIn(3);
    } else if (what < 986) {
      worker.is_mute = OneIn(4);
    } else if (what < 987) {
      if (worker.session != 0) registry_->StartDraining(worker.session).IgnoreError();
    } else if (what < 989) {
      registry_->SetOut(worker.device, OneIn(3));
      dispatcher_->Pump();
    } else if (what < 990) {
      hold_ = OneIn(3) ? "the disk is full" : "";
      dispatcher_->SetHold(hold_);
    } else if (what < 991) {
      if (OneIn(3)) Stall();
    } else if (what < 992) {
      if (OneIn(4)) RestartFrontend();
    } else {
      SetWallClock();
    }
  }
  // This process stands still for a while: who is lost then would have been lost without it.
  void Stall() {
    ++seen_["stall"];
    WorkerRegistry other(*registry_);
    clock_.Advance(absl::Milliseconds(500));
    const std::vector<LostAttempt> want = other.TakeLost();
    clock_.Advance(absl::Seconds(static_cast<int64_t>(12 + Below(100))));
    const std::vector<LostAttempt> lost = registry_->TakeLost();
    ASSERT_EQ(lost.size(), want.size());
    for (size_t i = 0; i < lost.size(); ++i) EXPECT_EQ(lost[i].ref, want[i].ref);
    Lose(lost);
    for (SimWorker& worker : workers_) Beat(worker);
    Tick();
  }
  void SetWallClock() {
    const absl::Duration steps[] = {absl::Hours(1), -absl::Hours(1), absl::Hours(24) * 3650,
                                    -absl::Hours(24) * 3650};
    const absl::Duration step = steps[Below(4)];
    Settle();  // a wall time that is on its way from the store to the queue would be another one
    CheckQuiet();
    if (!sets_wall_clock_) return;
    const auto look = [&] {
      std::vector<std::string> seen;
      for (const JobQueue::Place& place : queue_->InOrder()) {
        seen.push_back(absl::StrCat(place.job.id, " ", absl::FormatDuration(place.backoff_left)));
      }
      seen.push_back(absl::FormatDuration(queue_->NextTimer()));
      for (const ReadyWorker& worker : registry_->Ready()) seen.push_back(worker.name);
      return seen;
    };
    const auto before = look();
    clock_.JumpWall(step);
    EXPECT_EQ(look(), before);
  }

  // Disturbances end, and everything that waits must come to its end in bounded time.
  void Drain() {
    for (SimWorker& worker : workers_) {
      worker.is_hung = worker.is_mute = false;
      registry_->SetOut(worker.device, false);
      if (worker.process_id == 0) worker.process_id = ++last_process_;
      if (worker.session != 0) Disconnect(worker);
    }
    hold_.clear();
    dispatcher_->SetHold("");
    int rounds = 0;
    const auto is_over = [&] {
      for (const auto& [id, record] : store_.records()) {
        if (!IsTerminal(record.job.state)) return false;
      }
      return true;
    };
    for (; rounds < 3000 && !testing::Test::HasFailure(); ++rounds) {
      Settle();
      CheckQuiet();
      if (is_over()) break;
      PassTime(absl::Milliseconds(500));
      for (SimWorker& worker : workers_) {
        if (worker.session == 0) Hello(worker);
        while (!worker.inbox.empty()) Deliver(worker);
        for (size_t i = worker.runs.size(); i > 0; --i) Finish(worker);
      }
      while (!questions_.empty()) AnswerQuestion(0);
    }
    if (is_over()) return;
    for (const auto& [id, record] : store_.records()) {
      if (IsTerminal(record.job.state)) continue;
      ADD_FAILURE() << id << " is still " << JobStateName(record.job.state) << " after " << rounds
                    << " rounds; " << record.job.attempts.size() << " attempts";
    }
  }

  // --- What must hold. ---

  void CheckAlways() {
    // No attempt is on two workers, and none is held twice.
    std::set<std::string> on_workers, held;
    for (const SimWorker& worker : workers_) {
      for (const SimWorker::Run& run : worker.runs) {
        EXPECT_TRUE(on_workers.insert(Name(run.ref)).second) << Name(run.ref) << " runs twice";
      }
    }
    for (const WorkerSnapshot& worker : registry_->Snapshot()) {
      EXPECT_GE(worker.reserved, 0);
      if (worker.session != 0) {
        EXPECT_LE(static_cast<int>(worker.held.size()) + worker.reserved, worker.max_attempts)
            << worker.name;
      }
      for (const AttemptRef& ref : worker.held) {
        EXPECT_TRUE(held.insert(Name(ref)).second) << Name(ref) << " is held twice";
      }
    }
    // Somebody answers for every running attempt.
    for (const auto& [id, record] : store_.records()) {
      if (record.job.state != JobState::kRunning) continue;
      EXPECT_TRUE(held.contains(Name(record.running)) || ending_.contains(Name(record.running)) ||
                  being_claimed_.contains(id))
          << Name(record.running) << " runs on nobody";
    }
  }

  // When nothing is under way.
  void CheckQuiet() {
    being_claimed_.clear();
    EXPECT_TRUE(ending_.empty()) << absl::StrJoin(ending_, ", ");
    std::set<std::string> running, held;
    std::map<std::pair<int, int64_t>, std::string> queued;
    for (const auto& [id, record] : store_.records()) {
      if (record.job.state == JobState::kRunning) running.insert(Name(record.running));
      if (record.job.state == JobState::kQueued) {
        queued[{-static_cast<int>(record.job.priority), record.order}] = id;
      }
    }
    std::map<std::string, std::set<std::string>> by_worker;
    int reserved = 0;
    for (const WorkerSnapshot& worker : registry_->Snapshot()) {
      reserved += worker.reserved;
      for (const AttemptRef& ref : worker.held) {
        held.insert(Name(ref));
        by_worker[worker.name].insert(Name(ref));
      }
    }
    EXPECT_EQ(held, running) << "held and running differ";
    // The queue in memory is the store's.
    const auto places = queue_->InOrder();
    EXPECT_EQ(places.size(), queued.size());
    for (size_t i = 0; i < places.size() && places.size() == queued.size(); ++i) {
      EXPECT_EQ(places[i].job.id, std::next(queued.begin(), static_cast<ptrdiff_t>(i))->second);
    }
    // A slot is reserved for every open question whose worker is still there, and for no other.
    std::set<std::string> judged;
    std::set<SessionId> sessions;
    for (const WorkerSnapshot& worker : registry_->Snapshot()) sessions.insert(worker.session);
    int asked = 0;
    for (const Question& question : questions_) {
      judged.insert(question.job_id);
      if (sessions.contains(question.session)) ++asked;
    }
    EXPECT_EQ(reserved, asked);
    // No job waits that could start.
    const std::vector<ReadyWorker> ready = registry_->Ready();
    for (const auto& [key, id] : queued) {
      const MemoryJobStore::Record& record = store_.records().at(id);
      if (!hold_.empty() || judged.contains(id) || record.ready_at > clock_.Monotonic()) continue;
      for (const ReadyWorker& worker : ready) {
        EXPECT_FALSE(MayTake(worker, {.id = id, .model = record.job.model}))
            << id << " waits, and '" << worker.name << "' is ready";
      }
    }
    // A worker whose wire is empty has exactly what it is thought to have.
    for (const SimWorker& worker : workers_) {
      if (worker.session == 0 || !sessions.contains(worker.session) || !worker.inbox.empty())
        continue;
      std::set<std::string> runs;
      for (const SimWorker::Run& run : worker.runs) runs.insert(Name(run.ref));
      EXPECT_EQ(runs, by_worker[worker.name]) << worker.name;
    }
  }

  struct Question {
    std::string job_id;
    std::string worker;
    SessionId session = 0;
    std::function<void(Verdict)> done;
  };

  static LeaseOptions Options() {
    LeaseOptions options;
    options.hang = {.loading = absl::Seconds(20),
                    .unknown = absl::Seconds(30),
                    .factor = 5,
                    .least = absl::Seconds(10),
                    .steps_to_know = 3};
    return options;
  }

  SeededRandom random_;
  SeededRandom tokens_{7};
  const bool sets_wall_clock_;
  const LeaseOptions options_ = Options();
  FakeClock clock_;
  MemoryJobStore store_;
  std::shared_ptr<ManualStrand> strand_;
  std::unique_ptr<WorkerRegistry> registry_;
  std::unique_ptr<JobQueue> queue_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::vector<SimWorker> workers_;
  std::vector<Question> questions_;      // that wait for an answer
  std::set<std::string> being_claimed_;  // jobs that were said to fit
  std::multiset<std::string> ending_;    // attempts whose end is under way
  std::vector<std::string> ended_;       // jobs
  std::string hold_;
  int64_t last_process_ = 100;
  int submitted_ = 0;
  int lifecycles_ = 0;
  bool keeps_trace_ = false;
  std::vector<std::string> trace_;
  std::map<std::string, int> seen_;
};

TEST(LifecycleTest, EveryJobComesToItsEndWhateverHappens) {
  const char* asked = std::getenv("KINO_SCHEDULER_LIFECYCLES");
  const int wanted = asked != nullptr ? std::atoi(asked) : 20'000;
  constexpr int kPerWorld = 2'500;
  int lifecycles = 0;
  std::map<std::string, int> seen;
  for (uint64_t seed = 1; lifecycles < wanted && !HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    World world(seed, true);
    world.Run(std::min(kPerWorld, wanted - lifecycles));
    lifecycles += world.lifecycles();
    for (const auto& [what, times] : world.seen()) seen[what] += times;
  }
  EXPECT_GE(lifecycles, wanted);
  if (lifecycles < 20'000) return;
  // Nothing of this is rare enough to be missed.
  for (const char* what : {"SUCCEEDED",
                           "FAILED",
                           "CANCELLED",
                           "QUARANTINED",
                           "EXPIRED",
                           "lost: INTERRUPTED",
                           "lost: CRASH",
                           "lost: HANG",
                           "lost: LEASE_LOST",
                           "lost: RUN_TIMEOUT",
                           "fit 0",
                           "fit 1",
                           "fit 2",
                           "claimed for a worker that had gone",
                           "restart",
                           "stall",
                           "resumed",
                           "dropped",
                           "requeued",
                           "forgiven"}) {
    EXPECT_GT(seen[what], 0) << what;
  }
}

TEST(LifecycleTest, StepsOfTheWallClockChangeNothing) {
  for (uint64_t seed = 100; seed < 103 && !HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    World steady(seed, false), stepping(seed, true);
    for (World* world : {&steady, &stepping}) {
      world->KeepTrace();
      world->Run(1'000);
    }
    ASSERT_GT(steady.trace().size(), 1'000u);
    const auto [a, b] = std::mismatch(steady.trace().begin(), steady.trace().end(),
                                      stepping.trace().begin(), stepping.trace().end());
    EXPECT_TRUE(a == steady.trace().end() && b == stepping.trace().end())
        << "differ first at " << a - steady.trace().begin() << ": "
        << (a == steady.trace().end() ? "the end" : *a) << ", with steps "
        << (b == stepping.trace().end() ? "the end" : *b);
  }
}

}  // namespace
}  // namespace kino::scheduler
