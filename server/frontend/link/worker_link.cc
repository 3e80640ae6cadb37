#include "server/frontend/link/worker_link.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "scheduler/fault_point.h"
#include "server/convert/duration.h"
#include "server/frontend/auth/credentials.h"
#include "server/frontend/link/finished_run.h"
#include "server/frontend/link/session.h"

namespace kino::frontend {
namespace {

constexpr int kProtocolVersion = 1;
constexpr absl::Duration kTick = absl::Milliseconds(50);

scheduler::LeaseOptions LeaseOptionsOf(const WorkerLinkOptions& options) {
  const config::LimitsConfig& limits = options.limits;
  return {.lease = options.link.lease,
          .reattach_grace = options.link.reattach_grace,
          .hang = {.loading = limits.load_timeout,
                   .unknown = limits.no_progress,
                   .factor = static_cast<double>(limits.no_progress_steps),
                   .least = std::min(limits.min_no_progress, limits.no_progress)}};
}

std::vector<scheduler::WorkerModel> ModelsOf(
    const google::protobuf::RepeatedPtrField<v1::WorkerModel>& models) {
  std::vector<scheduler::WorkerModel> out;
  for (const v1::WorkerModel& model : models)
    out.push_back({.name = model.name(), .loaded = model.loaded()});
  return out;
}

std::map<std::string, v1::WorkerModel> ByName(
    const google::protobuf::RepeatedPtrField<v1::WorkerModel>& models) {
  std::map<std::string, v1::WorkerModel> by_name;
  for (const v1::WorkerModel& model : models) by_name[model.name()] = model;
  return by_name;
}

}  // namespace

WorkerLink::WorkerLink(WorkerLinkOptions options, WorkerLinkParts parts)
    : options_(std::move(options)),
      parts_(std::move(parts)),
      registry_(LeaseOptionsOf(options_), parts_.clock),
      queue_(parts_.clock, options_.retry.max_backoff, options_.limits.max_tenant_running_jobs),
      strand_("link", 1),
      post_([this](absl::AnyInvocable<void()> task) { strand_.Post(std::move(task)); }),
      dispatcher_(
          parts_.store, registry_, queue_, post_,
          [this](const scheduler::Reservation& reservation,
                 const scheduler::ClaimedAttempt& claimed,
                 const absl::Status& assigned) { attempts_.Start(reservation, claimed, assigned); },
          [this](const scheduler::Reservation& reservation, const scheduler::QueuedJob& job,
                 std::function<void(scheduler::Verdict)> done) {
            Publish();  // the judge looks at the workers as they are
            parts_.judge(reservation, job, std::move(done));
          },
          [](const std::string& message) { spdlog::warn("{}", message); }),
      commands_(peers_, registry_),
      attempts_(
          {.store = parts_.store,
           .files = parts_.files,
           .hub = parts_.hub,
           .metrics = parts_.metrics,
           .clock = parts_.clock,
           .io = parts_.io,
           .registry = registry_,
           .peers = peers_,
           .history = parts_.history,
           .post = post_},
          {.on_end =
               [this] {
                 upkeep_.OnAttemptEnded();
                 dispatcher_.Pump();
               },
           .kill = [this](const std::string& worker,
                          scheduler::FailureCause cause) { exits_.Kill(worker, cause); },
           .on_crash = [this](const std::string& device,
                              const scheduler::AttemptRef& ref) { devices_.OnCrash(device, ref); },
           .on_shortage = [this](const char* reason,
                                 const std::string& words) { upkeep_.OnShortage(reason, words); }},
          options_.limits.cancel_grace),
      exits_(peers_, registry_, attempts_, parts_.metrics),
      devices_({.store = parts_.store,
                .clock = parts_.clock,
                .io = parts_.io,
                .registry = registry_,
                .peers = peers_,
                .commands = commands_,
                .post = post_,
                .on_trusted = [this] { dispatcher_.Pump(); },
                .kill =
                    [this](const std::string& worker) {
                      exits_.Kill(worker, scheduler::FailureCause::kHang);
                    }},
               options_.devices_file, options_.limits.load_timeout),
      upkeep_({.store = parts_.store,
               .files = parts_.files,
               .budget = parts_.budget,
               .metrics = parts_.metrics,
               .clock = parts_.clock,
               .queue = queue_,
               .dispatcher = dispatcher_,
               .post = post_},
              options_.models, options_.retention) {}

WorkerLink::~WorkerLink() { Stop(); }

absl::Status WorkerLink::Start(LastStop last_stop, std::function<absl::Status()> taken_over) {
  const absl::StatusOr<std::vector<scheduler::RunningAttempt>> running =
      parts_.store.RunningAttempts();
  if (!running.ok()) return running.status();
  const absl::StatusOr<std::vector<scheduler::QueuedJob>> queued = parts_.store.Queue();
  if (!queued.ok()) return queued.status();
  const absl::Status devices = devices_.Start();
  if (!devices.ok()) return devices;
  const absl::Status learnt = LearnFromStore(parts_.store, options_.models, parts_.history);
  if (!learnt.ok()) return learnt;
  for (const scheduler::RunningAttempt& attempt : *running)
    queue_.AddRunning(attempt.ref.job_id, attempt.tenant);
  for (const scheduler::QueuedJob& job : *queued) {
    queue_.Add(job);
    upkeep_.Look(job);
  }
  change_listener_ =
      parts_.store.AddChangeListener([this](const std::vector<scheduler::Change>& changes) {
        for (const scheduler::Change& change : changes)
          parts_.hub.OnState(change.job_id, change.event.number);
        strand_.Post([this, changes] { HandleChanges(changes); });
      });
  if (last_stop == LastStop::kFrontendOnly) {
    const absl::Status adopted = attempts_.Adopt(*running);
    if (!adopted.ok()) return adopted;
    registry_.Adopt(*running);
    const absl::Status noted = taken_over();
    if (!noted.ok()) return noted;
  }
  {
    // Before the strand has its first task: from then on only tasks look at the attempts.
    absl::MutexLock lock(&mutex_);
    published_.attempts_held = attempts_.held();
    for (const std::string& worker : options_.workers)
      published_.absent[worker] = parts_.clock.Monotonic();
  }
  if (last_stop != LastStop::kFrontendOnly) {
    const bool is_orderly = last_stop == LastStop::kOrderly;
    taken_over_ = std::move(taken_over);
    strand_.Post([this, running = *running, is_orderly] {
      upkeep_.SetTakenOver(false);
      attempts_.GiveUp(running,
                       is_orderly ? scheduler::FailureCause::kInterrupted
                                  : scheduler::FailureCause::kUncleanStop,
                       is_orderly ? "the server was stopped" : "the server was stopped uncleanly");
      TakeOver();
    });
  }
  ticker_ = std::make_unique<Ticker>(kTick, [this] {
    if (!tick_posted_.exchange(true)) strand_.Post([this] { Tick(); });
  });
  return absl::OkStatus();
}

void WorkerLink::OnMessage(std::shared_ptr<Session> session, v1::WorkerMessage message) {
  strand_.Post([this, session = std::move(session), message = std::move(message)] {
    Handle(session, message);
    session->ReadNext();
    Publish();
  });
}

void WorkerLink::OnStreamEnded(std::shared_ptr<Session> session) {
  strand_.Post([this, session = std::move(session)] { HandleStreamEnd(session.get()); });
}

void WorkerLink::HandleStreamEnd(const Session* session) {
  const std::optional<Peer> peer = peers_.Remove(session);
  if (!peer) return;
  registry_.Disconnected(peer->id);
  {
    absl::MutexLock lock(&mutex_);
    published_.absent[peer->name] = parts_.clock.Monotonic();
  }
  parts_.metrics.SetWorkerUp(peer->name, peer->device, false);
  spdlog::warn("worker {}: disconnected", peer->name);
  commands_.WorkerGone(peer->name);
  Publish();
  dispatcher_.Pump();  // what would have fitted there is judged anew
}

void WorkerLink::OnControl(const config::ControlMessage& message) {
  strand_.Post([this, message] {
    if (const auto* started = std::get_if<config::WorkerStarted>(&message)) {
      exits_.OnStarted(*started);
    } else if (const auto* exited = std::get_if<config::WorkerExited>(&message)) {
      exits_.OnExited(*exited);
      Publish();
    } else if (std::holds_alternative<config::MachineStopping>(message)) {
      exits_.OnMachineStopping();
      dispatcher_.Stop();
    }
  });
}

void WorkerLink::CancelRunning(const std::string& job_id) {
  strand_.Post([this, job_id] { attempts_.Cancel(job_id); });
}

void WorkerLink::StopClaiming() {
  strand_.Post([this] {
    dispatcher_.Stop();
    commands_.Stop();
  });
}

void WorkerLink::WaitForAttempts(absl::Duration timeout) {
  const auto none_held = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return published_.attempts_held == 0;
  };
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&none_held), timeout);
}

void WorkerLink::Stop() {
  if (is_stopped_) return;
  is_stopped_ = true;
  if (change_listener_ != 0) parts_.store.RemoveChangeListener(change_listener_);
  ticker_.reset();
  strand_.Post([this] {
    dispatcher_.Stop();
    commands_.Stop();
    for (const auto& [session, peer] : peers_.all()) {
      peer.stream->Close(absl::UnavailableError("the frontend stops; come back"));
    }
  });
  strand_.Stop();
}

void WorkerLink::HandleChanges(const std::vector<scheduler::Change>& changes) {
  for (const scheduler::Change& change : changes) {
    dispatcher_.OnChange(change);
    upkeep_.OnChange(change);
    if (!scheduler::IsTerminal(change.event.state)) continue;
    parts_.io.Post([this, job_id = change.job_id] {
      const absl::StatusOr<scheduler::Job> job = parts_.store.GetAnyTenant(job_id);
      if (job.ok()) parts_.metrics.JobEnded(*job);
    });
  }
  Publish();
}

void WorkerLink::TakeOver() {
  // Nothing else is held as long as nothing is claimed.
  if (taken_over_ == nullptr || attempts_.held() > 0) return;
  if (absl::Status noted = taken_over_(); !noted.ok()) {
    if (noted != take_over_error_) spdlog::error("no job is started: {}", noted.ToString());
    take_over_error_ = std::move(noted);
    return;
  }
  taken_over_ = nullptr;
  upkeep_.SetTakenOver(true);
}

void WorkerLink::Tick() {
  tick_posted_ = false;
  TakeOver();
  for (const scheduler::LostAttempt& lost : registry_.TakeLost()) {
    attempts_.Lose(lost);
    // Connected and yet silent for a whole lease: it may never speak again, and kinod sees a
    // process that runs.
    if (lost.cause == scheduler::FailureCause::kLeaseLost && lost.session != 0)
      exits_.Kill(lost.worker, lost.cause);
  }
  attempts_.Tick(registry_.late());
  CheckAbsent();
  devices_.Tick();
  upkeep_.Tick();
  // Whoever was lost has freed slots, and marks with them; a back-off may have ended.
  dispatcher_.Pump();
  parts_.metrics.SetWatchers(parts_.hub.watchers());
  Publish();
}

void WorkerLink::Publish() {
  const int64_t version = registry_.version();
  absl::MutexLock lock(&mutex_);
  published_.attempts_held = attempts_.held();
  published_.hold = upkeep_.hold().waiting_reason;
  published_.held_tenants.clear();
  for (const std::string& tenant : queue_.TenantsAtLimit())
    published_.held_tenants[tenant] = kWaitsForTenantsJobs;
  for (const std::string& tenant : upkeep_.held_tenants())
    published_.held_tenants[tenant] = kWaitsForTenantsDisk;
  published_.busy_until = attempts_.BusyUntil();
  if (published_.version == version) return;
  published_.version = version;
  published_.workers = registry_.Snapshot();
  for (const scheduler::WorkerSnapshot& worker : published_.workers)
    parts_.metrics.SetDeviceOut(worker.name, worker.device, worker.is_out);
  published_.unfit = registry_.Unfit();
}

void WorkerLink::CheckAbsent() {
  const absl::Duration now = parts_.clock.Monotonic();
  size_t given_up = 0;
  {
    absl::MutexLock lock(&mutex_);
    // Time in which nobody listened counts against none of them.
    for (auto& [name, since] : published_.absent) since += registry_.late();
    given_up = std::erase_if(published_.absent, [&](const auto& entry) {
      return now - entry.second >= options_.link.reattach_grace;
    });
  }
  if (given_up == 0) return;
  registry_.ForgetAllUnfit();
  dispatcher_.Pump();
}

void WorkerLink::Handle(const std::shared_ptr<Session>& session, const v1::WorkerMessage& message) {
  Peer* peer = peers_.Find(session.get());
  if (message.message_case() == v1::WorkerMessage::kHello) {
    const absl::Status greeted = peer != nullptr
                                     ? absl::FailedPreconditionError("a second hello on one stream")
                                     : HandleHello(session, message.hello());
    if (!greeted.ok()) {
      spdlog::warn("a worker was refused: {}", std::string(greeted.message()));
      session->Close(greeted);
    }
    return;
  }
  if (peer == nullptr) {
    session->Close(absl::FailedPreconditionError("the first message must be a hello"));
    return;
  }
  if (const absl::Status heard = registry_.Heard(peer->id); !heard.ok()) {
    session->Close(heard);
    return;
  }
  switch (message.message_case()) {
    case v1::WorkerMessage::kHeartbeat:
      HandleHeartbeat(*peer, message.heartbeat());
      break;
    case v1::WorkerMessage::kEvent:
      attempts_.OnEvent(*peer, message.event());
      break;
    case v1::WorkerMessage::kModelResult:
      commands_.OnResult(message.model_result());
      break;
    case v1::WorkerMessage::kProfile:
      commands_.OnProfile(message.profile());
      break;
    case v1::WorkerMessage::kDraining:
      spdlog::info("worker {}: takes no more attempts", peer->name);
      (void)registry_.StartDraining(peer->id);
      break;
    default:
      session->Close(absl::InvalidArgumentError("an empty or unknown message"));
  }
}

absl::Status WorkerLink::HandleHello(const std::shared_ptr<Session>& session,
                                     const v1::WorkerHello& hello) {
  if (!SecretsEqual(hello.link_secret(), options_.link_secret)) {
    return absl::UnauthenticatedError("the link secret does not match");
  }
  if (hello.protocol_version() != kProtocolVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "link protocol: expected version ", kProtocolVersion, ", got ", hello.protocol_version()));
  }
  if (!config::IsValidName(hello.worker())) {
    return absl::InvalidArgumentError("a worker's name is [a-z0-9][a-z0-9._-]{0,127}");
  }
  scheduler::WorkerHello known{.name = hello.worker(),
                               .process_id = hello.pid(),
                               .device = hello.device(),
                               .max_attempts = hello.max_attempts(),
                               .models = ModelsOf(hello.models()),
                               .held = {}};
  for (const v1::AttemptRef& ref : hello.held()) known.held.push_back(FromProto(ref));
  const absl::StatusOr<scheduler::HelloResult> result = registry_.Hello(known);
  if (!result.ok()) return result.status();
  // A worker may be back before the end of its last stream is seen, which tells nobody then.
  commands_.WorkerGone(hello.worker());
  // A copy: what follows may change the table.
  const Peer peer = peers_.Add({.stream = session,
                                .id = result->session,
                                .name = hello.worker(),
                                .device = hello.device(),
                                .device_name = hello.device_name(),
                                .version = hello.version(),
                                .models = ByName(hello.models()),
                                .device_memory_bytes = hello.device_memory_bytes(),
                                .pid = hello.pid()});
  spdlog::info("worker {}: connected, {} ({}), pid {}, version {}, holds {} attempts", peer.name,
               peer.device, hello.device_name(), peer.pid, hello.version(), hello.held_size());
  {
    absl::MutexLock lock(&mutex_);
    published_.absent.erase(peer.name);
    published_.memories[peer.name] = {
        .worker = peer.name,
        .device = peer.device,
        .device_bytes = std::max<int64_t>(hello.device_memory_bytes(), 0),
        .host_bytes = std::max<int64_t>(hello.host_memory_bytes(), 0)};
  }
  parts_.metrics.SetWorkerUp(peer.name, peer.device, true);
  parts_.metrics.SetDeviceMemory(peer.name, peer.device, 0, peer.device_memory_bytes);
  // First of all: what ends with the lost attempts may give this worker a new one at once.
  v1::FrontendMessage message;
  v1::HelloReply& reply = *message.mutable_hello_reply();
  reply.set_server_version(KINO_VERSION);
  convert::SetDuration(options_.link.heartbeat_interval, reply.mutable_heartbeat_interval());
  convert::SetDuration(options_.link.lease, reply.mutable_lease());
  attempts_.Resume(peer, *result, reply);
  KINO_FAULT_POINT("frontend.hello.before_reply");
  peer.stream->Send(std::move(message));
  KINO_FAULT_POINT("frontend.hello.replied");
  attempts_.AfterHello(peer, *result);
  dispatcher_.Pump();
  return absl::OkStatus();
}

void WorkerLink::HandleHeartbeat(Peer& peer, const v1::WorkerHeartbeat& heartbeat) {
  std::vector<scheduler::AttemptPulse> pulses;
  for (const v1::AttemptPulse& pulse : heartbeat.attempts()) {
    pulses.push_back({.ref = FromProto(pulse.ref()),
                      .stage = pulse.stage(),
                      .counter = pulse.counter(),
                      .steps = pulse.steps(),
                      .usual_step = absl::Seconds(pulse.step_seconds())});
  }
  (void)registry_.Heartbeat(peer.id, heartbeat.progress_counter(), pulses,
                            ModelsOf(heartbeat.models()));
  peer.models = ByName(heartbeat.models());
  peer.device_memory_used_bytes = heartbeat.device_memory_used_bytes();
  attempts_.OnHeartbeat(peer);
  parts_.metrics.SetDeviceMemory(peer.name, peer.device, heartbeat.device_memory_used_bytes(),
                                 peer.device_memory_bytes);
  parts_.metrics.SetSpool(peer.name, heartbeat.spool_bytes());
  for (const v1::ModelLoad& load : heartbeat.loads()) {
    if (options_.models.contains(load.model()))
      parts_.metrics.ModelLoaded(load.model(), load.seconds());
  }
  v1::FrontendMessage message;
  message.mutable_heartbeat_ack();
  peer.stream->Send(std::move(message));
}

void WorkerLink::LoadModel(const std::string& model, CommandDone done) {
  strand_.Post([this, model, done = std::move(done)]() mutable {
    commands_.LoadModel(model, std::move(done));
  });
}

void WorkerLink::UnloadModel(const std::string& model, CommandDone done) {
  strand_.Post([this, model, done = std::move(done)]() mutable {
    commands_.UnloadModel(model, std::move(done));
  });
}

void WorkerLink::AskProfile(const std::string& kind, v1::ProfileQuery query, Profiles::Done done) {
  strand_.Post([this, kind, query = std::move(query), done = std::move(done)]() mutable {
    commands_.AskProfile(kind, std::move(query), std::move(done));
  });
}

std::vector<scheduler::WorkerSnapshot> WorkerLink::Workers() const {
  absl::MutexLock lock(&mutex_);
  return published_.workers;
}

std::set<std::string> WorkerLink::Absent() const {
  absl::MutexLock lock(&mutex_);
  std::set<std::string> names;
  for (const auto& [name, since] : published_.absent) names.insert(name);
  return names;
}

std::vector<WorkerMemory> WorkerLink::Memories() const {
  absl::MutexLock lock(&mutex_);
  std::vector<WorkerMemory> memories;
  for (const auto& [name, memory] : published_.memories) memories.push_back(memory);
  return memories;
}

bool WorkerLink::WaitsForMemory(const std::string& job_id) const {
  absl::MutexLock lock(&mutex_);
  return published_.unfit.contains(job_id);
}

std::string WorkerLink::HeldBecause() const {
  absl::MutexLock lock(&mutex_);
  return published_.hold;
}

std::map<std::string, std::string> WorkerLink::HeldTenants() const {
  absl::MutexLock lock(&mutex_);
  return published_.held_tenants;
}

BusyTimes WorkerLink::Busy() const {
  const absl::Duration now = parts_.clock.Monotonic();
  absl::MutexLock lock(&mutex_);
  BusyTimes busy = published_.busy_until;
  for (auto& [worker, until] : busy) until = std::max(until - now, absl::ZeroDuration());
  return busy;
}

}  // namespace kino::frontend
