#include "server/frontend/link/worker_link.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/convert/status.h"
#include "server/frontend/link/session.h"

namespace kino::frontend {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(50);
constexpr absl::Duration kHousekeepingInterval = absl::Milliseconds(500);
constexpr absl::Duration kTimerCheckInterval = absl::Milliseconds(200);
constexpr absl::Duration kMinPurgeInterval = absl::Seconds(1);
constexpr absl::Duration kMaxPurgeInterval = absl::Minutes(1);
constexpr int kPurgeBatch = 500;

v1::AttemptRef ToProto(const scheduler::AttemptRef& ref) {
  v1::AttemptRef out;
  out.set_job_id(ref.job_id);
  out.set_attempt(ref.attempt);
  out.set_token(ref.token);
  return out;
}

void SetDuration(absl::Duration duration, google::protobuf::Duration* out) {
  const absl::Duration bounded = std::min(duration, absl::Hours(24 * 3650));
  out->set_seconds(absl::ToInt64Seconds(bounded));
  out->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(bounded - absl::Seconds(absl::ToInt64Seconds(bounded)))));
}

}  // namespace

WorkerLink::WorkerLink(WorkerLinkOptions options, WorkerLinkParts parts)
    : options_(std::move(options)),
      parts_(parts),
      registry_({.lease = options_.link.lease,
                 .reattach_grace = options_.link.reattach_grace,
                 .stall_limit = options_.limits.no_progress},
                parts.clock),
      strand_("link", 1),
      dispatcher_(
          parts.store, registry_,
          [this](scheduler::SessionId session, scheduler::ClaimedAttempt claimed) {
            strand_.Post(
                [this, session, claimed = std::move(claimed)] { StartAttempt(session, claimed); });
          },
          parts_.judge, [](const std::string& message) { spdlog::warn("{}", message); }) {}

WorkerLink::~WorkerLink() { Stop(); }

absl::Status WorkerLink::Start() {
  absl::StatusOr<std::vector<scheduler::RunningAttempt>> running = parts_.store.RunningAttempts();
  if (!running.ok()) return running.status();
  registry_.Adopt(*running);
  for (const scheduler::RunningAttempt& attempt : *running) {
    const std::string video = FileStore::VideoName(attempt.ref.job_id, attempt.ref.attempt);
    absl::StatusOr<std::unique_ptr<VideoWriter>> writer = parts_.files.OpenWriter(video);
    if (!writer.ok()) return writer.status();
    const absl::StatusOr<scheduler::Job> job = parts_.store.GetAnyTenant(attempt.ref.job_id);
    if (!job.ok()) return job.status();
    Live live{.ref = attempt.ref,
              .model = job->model,
              .worker = attempt.worker,
              .writer = *std::move(writer),
              .applied = std::nullopt,
              .plan = std::nullopt,
              .is_finishing = false,
              .cancel_deadline = absl::InfiniteDuration()};
    if (v1::Job stats; stats.ParseFromString(job->stats) && stats.has_plan()) {
      live.plan = stats.plan();
    }
    if (attempt.cancel_requested) {
      live.cancel_deadline = parts_.clock.Monotonic() + options_.limits.cancel_grace;
    }
    parts_.hub.OnBytes(attempt.ref.job_id, attempt.ref.attempt, live.writer->size());
    spdlog::info("job {} attempt {}: waiting for worker {} to come back", attempt.ref.job_id,
                 attempt.ref.attempt, attempt.worker);
    live_.emplace(attempt.ref.job_id, std::move(live));
  }
  {
    absl::MutexLock lock(&mutex_);
    attempts_held_ = static_cast<int>(live_.size());
    for (const std::string& worker : options_.workers) absent_[worker] = parts_.clock.Monotonic();
  }
  change_listener_ = parts_.store.AddChangeListener(
      [this](const std::vector<scheduler::Change>& changes) { OnChanges(changes); });
  ticker_ = std::make_unique<Ticker>(kTick, [this] {
    if (!tick_posted_.exchange(true)) strand_.Post([this] { Tick(); });
  });
  return absl::OkStatus();
}

void WorkerLink::SetKillWorker(KillWorker kill) {
  absl::MutexLock lock(&mutex_);
  kill_ = std::move(kill);
}

void WorkerLink::OnMessage(std::shared_ptr<Session> session, v1::WorkerMessage message) {
  strand_.Post([this, session = std::move(session), message = std::move(message)] {
    Handle(session, message);
    session->ReadNext();
  });
}

void WorkerLink::OnStreamEnded(std::shared_ptr<Session> session) {
  strand_.Post([this, session = std::move(session)] {
    const auto found = peers_.find(session.get());
    if (found == peers_.end()) return;
    const Peer peer = std::move(found->second);
    peers_.erase(found);
    registry_.Disconnected(peer.id);
    if (FindPeer(peer.name) == nullptr) {
      {
        absl::MutexLock lock(&mutex_);
        absent_[peer.name] = parts_.clock.Monotonic();
      }
      parts_.metrics.SetWorkerUp(peer.name, peer.device, false);
      spdlog::warn("worker {}: disconnected", peer.name);
    }
    std::vector<CommandDone> broken;
    for (auto it = commands_.begin(); it != commands_.end();) {
      if (it->second.worker != peer.name) {
        ++it;
        continue;
      }
      broken.push_back(std::move(it->second.done));
      it = commands_.erase(it);
    }
    for (CommandDone& done : broken) {
      done(absl::UnavailableError(absl::StrCat("worker ", peer.name, " went away")));
    }
    std::vector<Profiles::Done> unanswered;
    for (auto it = questions_.begin(); it != questions_.end();) {
      if (it->second.worker != peer.name) {
        ++it;
        continue;
      }
      unanswered.push_back(std::move(it->second.done));
      it = questions_.erase(it);
    }
    for (Profiles::Done& done : unanswered) {
      done(absl::UnavailableError(absl::StrCat("worker ", peer.name, " went away")));
    }
    dispatcher_.Pump();  // what would have fitted there is judged anew
  });
}

void WorkerLink::OnControl(const config::ControlMessage& message) {
  strand_.Post([this, message] {
    if (const auto* started = std::get_if<config::WorkerStarted>(&message)) {
      pids_[started->worker] = started->pid;
    } else if (const auto* exited = std::get_if<config::WorkerExited>(&message)) {
      HandleExit(*exited);
    } else if (std::holds_alternative<config::MachineStopping>(message)) {
      is_machine_stopping_ = true;
      dispatcher_.Stop();
    }
  });
}

void WorkerLink::CancelRunning(const std::string& job_id) {
  strand_.Post([this, job_id] {
    const auto found = live_.find(job_id);
    if (found != live_.end()) AskToCancel(found->second);
  });
}

void WorkerLink::StopClaiming() {
  dispatcher_.Stop();
  strand_.Post([this] { FailCommands(); });
}

void WorkerLink::FailCommands() {
  is_shutting_down_ = true;
  std::map<int64_t, Command> commands = std::exchange(commands_, {});
  for (auto& [id, command] : commands) {
    command.done(absl::UnavailableError("the server is shutting down"));
  }
  std::map<int64_t, ProfileQuestion> questions = std::exchange(questions_, {});
  for (auto& [id, question] : questions) {
    question.done(absl::UnavailableError("the server is shutting down"));
  }
}

void WorkerLink::WaitForAttempts(absl::Duration timeout) {
  const auto none_held = [this]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return attempts_held_ == 0; };
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&none_held), timeout);
}

void WorkerLink::Stop() {
  dispatcher_.Stop();
  if (change_listener_ != 0) parts_.store.RemoveChangeListener(change_listener_);
  change_listener_ = 0;
  ticker_.reset();
  if (is_stopped_) return;
  strand_.Post([this] {
    for (auto& [session, peer] : peers_) {
      peer.stream->Close(absl::UnavailableError("the frontend stops; come back"));
    }
    FailCommands();
  });
  strand_.Stop();
  is_stopped_ = true;
}

void WorkerLink::OnChanges(const std::vector<scheduler::Change>& changes) {
  for (const scheduler::Change& change : changes) {
    parts_.hub.OnState(change.job_id, change.event.number);
    if (scheduler::IsTerminal(change.event.state)) {
      strand_.Post([this, job_id = change.job_id] {
        const absl::StatusOr<scheduler::Job> job = parts_.store.GetAnyTenant(job_id);
        if (job.ok()) parts_.metrics.JobEnded(*job);
      });
    }
  }
  queue_moved_ = true;
  dispatcher_.OnChanges(changes);
}

void WorkerLink::Tick() {
  tick_posted_ = false;
  for (const scheduler::LostAttempt& lost : registry_.TakeLost()) {
    HandleLost(lost);
    // Connected and yet silent for a whole lease: it may never speak again, and kinod sees a
    // process that runs.
    if (lost.cause == scheduler::FailureCause::kLeaseLost && lost.session != 0) {
      KillStuck(lost.worker, lost.cause);
    }
  }
  CheckCancelDeadlines();
  CheckAbsent();
  const absl::Duration now = parts_.clock.Monotonic();
  if (now >= next_timer_check_) {
    next_timer_check_ = now + kTimerCheckInterval;
    const absl::StatusOr<absl::Time> due = parts_.store.NextTimer();
    if (due.ok() && *due <= parts_.clock.Now()) {
      const auto expired = parts_.store.ExpireDue();
      if (!expired.ok()) spdlog::error("expiring jobs: {}", expired.status().ToString());
      dispatcher_.Pump();
    }
  }
  if (now >= next_housekeeping_) {
    next_housekeeping_ = now + kHousekeepingInterval;
    Housekeeping();
  }
  if (now >= next_purge_) {
    const absl::Duration shortest = std::min(options_.retention.results, options_.retention.assets);
    next_purge_ = now + std::clamp(shortest / 10, kMinPurgeInterval, kMaxPurgeInterval);
    RunPurge(parts_.clock.Now());
  }
}

void WorkerLink::CheckAbsent() {
  const absl::Duration now = parts_.clock.Monotonic();
  size_t given_up = 0;
  {
    absl::MutexLock lock(&mutex_);
    given_up = std::erase_if(absent_, [&](const auto& entry) {
      return now - entry.second >= options_.link.reattach_grace;
    });
  }
  if (given_up == 0) return;
  registry_.ForgetAllUnfit();
  dispatcher_.Pump();
}

void WorkerLink::Housekeeping() {
  // What the store could not take while its disk was full.
  std::vector<Ending> endings = std::exchange(pending_endings_, {});
  for (Ending& ending : endings) TryEnding(std::move(ending));
  std::vector<Commit> commits = std::exchange(pending_commits_, {});
  for (Commit& commit : commits) TryCommit(std::move(commit));
  if (const auto load = parts_.store.Load(); load.ok()) parts_.metrics.SetQueue(*load);
  parts_.metrics.SetWatchers(parts_.hub.watchers());
  if (queue_moved_.exchange(false)) parts_.hub.OnQueueMoved();
  dispatcher_.Pump();
}

void WorkerLink::RunPurge(absl::Time now) {
  const auto results = parts_.store.PurgeResults(now - options_.retention.results, kPurgeBatch);
  if (results.ok()) {
    for (const std::string& file : *results) parts_.files.RemoveVideo(file);
    if (!results->empty()) spdlog::info("purged {} results that have aged out", results->size());
  }
  const auto assets = parts_.store.DeleteUnusedAssets(now - options_.retention.assets, kPurgeBatch);
  if (assets.ok()) {
    for (const std::string& file : *assets) parts_.files.RemoveAsset(file);
  }
}

absl::StatusOr<v1::StartAttempt> WorkerLink::MakeStartAttempt(
    const scheduler::ClaimedAttempt& claimed) {
  v1::StartAttempt start;
  *start.mutable_ref() = ToProto(claimed.ref);
  if (!start.mutable_request()->ParseFromString(claimed.job.request)) {
    return absl::InternalError("the stored request cannot be read");
  }
  for (const v1::Condition& condition : start.request().conditions()) {
    const absl::StatusOr<scheduler::Asset> asset =
        parts_.store.GetAsset(claimed.job.tenant, condition.asset_id());
    if (!asset.ok()) return asset.status();
    start.add_condition_files(parts_.files.AssetPath(asset->file_name));
  }
  SetDuration(claimed.job.run_timeout, start.mutable_run_timeout());
  return start;
}

void WorkerLink::StartAttempt(scheduler::SessionId session,
                              const scheduler::ClaimedAttempt& claimed) {
  const scheduler::AttemptRef& ref = claimed.ref;
  if (ref.attempt == 1) {
    parts_.metrics.JobStarted(claimed.job.priority, parts_.clock.Now() - claimed.job.create_time);
  }
  const Peer* const found = FindPeer(session);
  if (found == nullptr) {
    EndWithoutResult(ref, {.cause = scheduler::FailureCause::kInterrupted,
                           .error = absl::UnavailableError("the worker went away"),
                           .stats = ""});
    return;
  }
  const Peer& peer = *found;
  absl::StatusOr<v1::StartAttempt> start = MakeStartAttempt(claimed);
  if (!start.ok()) {
    EndWithoutResult(
        ref, {.cause = scheduler::FailureCause::kClient, .error = start.status(), .stats = ""});
    return;
  }
  absl::StatusOr<std::unique_ptr<VideoWriter>> writer =
      parts_.files.OpenWriter(FileStore::VideoName(ref.job_id, ref.attempt));
  if (!writer.ok()) {
    EndWithoutResult(
        ref, {.cause = scheduler::FailureCause::kInternal, .error = writer.status(), .stats = ""});
    return;
  }
  const auto [live, inserted] =
      live_.insert_or_assign(ref.job_id, Live{.ref = ref,
                                              .model = claimed.job.model,
                                              .worker = peer.name,
                                              .writer = *std::move(writer),
                                              .applied = 0,
                                              .plan = std::nullopt,
                                              .is_finishing = false,
                                              .cancel_deadline = absl::InfiniteDuration()});
  {
    absl::MutexLock lock(&mutex_);
    attempts_held_ = static_cast<int>(live_.size());
  }
  parts_.hub.OnBytes(ref.job_id, ref.attempt, 0);
  spdlog::info("job {} attempt {}: given to worker {}", ref.job_id, ref.attempt, peer.name);
  v1::FrontendMessage message;
  *message.mutable_start() = *std::move(start);
  peer.stream->Send(std::move(message));
  // Asked for between the claim and here.
  const absl::StatusOr<scheduler::Job> job = parts_.store.GetAnyTenant(ref.job_id);
  if (job.ok() && job->cancel_requested) AskToCancel(live->second);
}

void WorkerLink::SendCommand(const Peer& peer, const std::string& model, bool is_load,
                             CommandDone done) {
  v1::FrontendMessage message;
  const int64_t id = ++last_command_;
  if (is_load) {
    message.mutable_load_model()->set_command_id(id);
    message.mutable_load_model()->set_model(model);
  } else {
    message.mutable_unload_model()->set_command_id(id);
    message.mutable_unload_model()->set_model(model);
  }
  commands_[id] = {.worker = peer.name, .done = std::move(done)};
  peer.stream->Send(std::move(message));
}

std::set<std::string> WorkerLink::Absent() const {
  absl::MutexLock lock(&mutex_);
  std::set<std::string> names;
  for (const auto& [name, since] : absent_) names.insert(name);
  return names;
}

std::vector<WorkerMemory> WorkerLink::Memories() const {
  absl::MutexLock lock(&mutex_);
  std::vector<WorkerMemory> memories;
  for (const auto& [name, memory] : memories_) memories.push_back(memory);
  return memories;
}

void WorkerLink::LoadModel(const std::string& model, CommandDone done) {
  strand_.Post([this, model, done = std::move(done)]() mutable {
    // One that has it loaded answers at once; else the one with the fewest attempts.
    const scheduler::WorkerSnapshot* best = nullptr;
    bool best_has_it = false;
    const std::vector<scheduler::WorkerSnapshot> workers = registry_.Snapshot();
    for (const scheduler::WorkerSnapshot& worker : workers) {
      if (worker.session == 0 || worker.is_draining) continue;
      for (const scheduler::WorkerModel& served : worker.models) {
        if (served.name != model) continue;
        const bool is_better =
            best == nullptr || (served.loaded && !best_has_it) ||
            (served.loaded == best_has_it && worker.held.size() < best->held.size());
        if (is_better) {
          best = &worker;
          best_has_it = served.loaded;
        }
      }
    }
    const Peer* peer = best == nullptr ? nullptr : FindPeer(best->name);
    if (peer == nullptr) {
      done(absl::UnavailableError(absl::StrCat("no worker that serves '", model, "' is up")));
      return;
    }
    SendCommand(*peer, model, /*is_load=*/true, std::move(done));
  });
}

void WorkerLink::AskProfile(const std::string& kind, v1::ProfileQuery query, Profiles::Done done) {
  strand_.Post([this, kind, query = std::move(query), done = std::move(done)]() mutable {
    // The question is answered beside a run, so how busy the worker is does not matter.
    for (const scheduler::WorkerSnapshot& worker : registry_.Snapshot()) {
      if (is_shutting_down_) break;
      if (worker.session == 0 || worker.device.substr(0, worker.device.find(':')) != kind) continue;
      const bool serves = std::any_of(
          worker.models.begin(), worker.models.end(),
          [&](const scheduler::WorkerModel& served) { return served.name == query.model(); });
      const Peer* peer = serves ? FindPeer(worker.name) : nullptr;
      if (peer == nullptr) continue;
      const int64_t id = ++last_command_;
      query.set_query_id(id);
      questions_[id] = {.worker = peer->name, .done = std::move(done)};
      v1::FrontendMessage message;
      *message.mutable_profile() = std::move(query);
      peer->stream->Send(std::move(message));
      return;
    }
    done(absl::UnavailableError(
        absl::StrCat("no worker on '", kind, "' that serves '", query.model(), "' is up")));
  });
}

void WorkerLink::UnloadModel(const std::string& model, CommandDone done) {
  strand_.Post([this, model, done = std::move(done)]() mutable {
    struct Shared {
      size_t open = 0;
      absl::Status status;
      CommandDone done;
    };
    const auto shared = std::make_shared<Shared>();
    shared->open = peers_.size();
    if (peers_.empty()) {
      done(absl::OkStatus());  // nowhere loaded
      return;
    }
    shared->done = std::move(done);
    for (const auto& [session, peer] : peers_) {
      SendCommand(peer, model, /*is_load=*/false, [shared](const absl::Status& status) {
        shared->status.Update(status);
        if (--shared->open == 0) shared->done(shared->status);
      });
    }
  });
}

WorkerLink::Peer* WorkerLink::FindPeer(const std::string& worker) {
  for (auto& [session, peer] : peers_) {
    if (peer.name == worker) return &peer;
  }
  return nullptr;
}

WorkerLink::Peer* WorkerLink::FindPeer(const Session* session) {
  const auto found = peers_.find(session);
  return found == peers_.end() ? nullptr : &found->second;
}

WorkerLink::Peer* WorkerLink::FindPeer(scheduler::SessionId session) {
  for (auto& [stream, peer] : peers_) {
    if (peer.id == session) return &peer;
  }
  return nullptr;
}

WorkerLink::Live* WorkerLink::FindLive(const scheduler::AttemptRef& ref) {
  const auto found = live_.find(ref.job_id);
  return found == live_.end() || found->second.ref != ref ? nullptr : &found->second;
}

std::string EncodeStats(const google::protobuf::RepeatedPtrField<v1::StageStats>& stages,
                        const v1::Plan* plan) {
  v1::Job stats;
  *stats.mutable_stages() = stages;
  if (plan != nullptr) *stats.mutable_plan() = *plan;
  return stats.SerializeAsString();
}

}  // namespace kino::frontend
