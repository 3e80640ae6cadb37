#include "server/worker/worker.h"
#include "scheduler/fault_point.h"

#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/core/machine.h"
#include "server/convert/status.h"
#include "server/convert/trace_context.h"
#include "server/worker/attempt_failure.h"
#include "server/worker/engine_thread.h"
#include "server/worker/held_attempts.h"
#include "server/worker/link.h"
#include "server/worker/models.h"
#include "server/worker/patience.h"
#include "server/worker/profiler.h"

namespace kino::worker {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(100);
// How often it is looked whether the last events are acknowledged.
constexpr absl::Duration kFarewellLook = absl::Milliseconds(10);
constexpr int kMaxAttempts = 1;

class Worker : public LinkDelegate {
 public:
  Worker(const WorkerOptions& options, const scheduler::Clock& clock,
         std::unique_ptr<engine::Engine> engine, const MediaDecoder& decode)
      : options_(options),
        clock_(clock),
        engine_(std::move(engine)),
        models_(*engine_, options.models,
                {.max_device_memory = options.max_device_memory,
                 .max_host_memory = options.max_host_memory,
                 .weights_cache = options.weights_cache,
                 .files = options.files}),
        held_(*options.files, options.spool_folder),
        link_(LinkOptions{.address = options.address}, held_, *this, clock),
        profiler_(models_,
                  [this](v1::ProfileAnswer answer) { link_.SendProfile(std::move(answer)); }),
        engine_thread_(
            *engine_, models_, decode, options.decode, clock, [this] { link_.Notify(); },
            [this](int64_t id, const absl::Status& status) { Answer(id, status); }) {
    hello_.set_protocol_version(kProtocolVersion);
    hello_.set_worker(options.name);
    hello_.set_version(KINO_VERSION);
    hello_.set_device(options.engine.device);
    hello_.set_device_name(engine_->device_name());
    hello_.set_device_memory_bytes(engine_->device_memory_bytes());
    hello_.set_host_memory_bytes(engine::UsableMemoryBytes());
    hello_.set_max_attempts(kMaxAttempts);
    hello_.set_pid(getpid());
    hello_.set_link_secret(options.link_secret);
  }

  int Run();

  // LinkDelegate.
  v1::WorkerHello Hello() override {
    v1::WorkerHello hello = hello_;
    for (v1::WorkerModel& model : models_.List()) *hello.add_models() = std::move(model);
    return hello;
  }
  v1::WorkerHeartbeat Heartbeat() override {
    v1::WorkerHeartbeat heartbeat;
    heartbeat.set_device_memory_used_bytes(engine_thread_.device_memory_used_bytes());
    heartbeat.set_progress_counter(engine_thread_.progress_counter());
    for (v1::WorkerModel& model : models_.List()) *heartbeat.add_models() = std::move(model);
    for (v1::AttemptPulse& pulse : held_.Pulses()) *heartbeat.add_attempts() = std::move(pulse);
    heartbeat.set_spool_bytes(held_.SpoolBytes());
    for (v1::ModelLoad& load : models_.TakeLoads()) *heartbeat.add_loads() = std::move(load);
    return heartbeat;
  }
  void OnStart(v1::StartAttempt command) override;
  void OnDrain() override {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  void OnLoadModel(v1::LoadModelCommand command) override { EnqueueCommand(std::move(command)); }
  void OnUnloadModel(v1::UnloadModelCommand command) override {
    EnqueueCommand(std::move(command));
  }
  void OnCheckDevice(v1::CheckDeviceCommand command) override {
    EnqueueCommand(std::move(command));
  }
  void OnProfile(v1::ProfileQuery query) override { profiler_.Ask(std::move(query)); }

 private:
  template <typename ModelOrDeviceCommand>
  void EnqueueCommand(ModelOrDeviceCommand command);
  void Answer(int64_t command_id, const absl::Status& status);
  // Why no attempt is taken now; nothing: one is.
  std::optional<Failure> Refusal(const HeldAttempt& attempt, bool is_busy);
  void TakeSignal();
  // The main thread's round; whether the process should go on.
  bool Tick();
  // Whether the worker, which takes nothing more, has something left to do.
  bool GoesOnDraining(absl::Duration now);
  void StopAttempts(StopReason reason) {
    held_.StopAll(reason);
    link_.Notify();
  }
  void WaitUntilSent();

  const WorkerOptions& options_;
  const scheduler::Clock& clock_;
  std::unique_ptr<engine::Engine> engine_;
  Models models_;
  HeldAttempts held_;
  v1::WorkerHello hello_;
  Link link_;
  Profiler profiler_;
  EngineThread engine_thread_;

  // The main thread's.
  int exit_code_ = kExitDrained;
  absl::Duration interrupt_at_ = absl::InfiniteDuration();
  Patience stopping_;

  absl::Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

std::optional<Failure> Worker::Refusal(const HeldAttempt& attempt, bool is_busy) {
  if (engine_thread_.device_lost()) {
    return Failure{v1::AttemptFailed::INTERRUPTED,
                   absl::UnavailableError("the worker's device is lost; it ends")};
  }
  {
    absl::MutexLock lock(&mutex_);
    if (draining_) {
      return Failure{v1::AttemptFailed::INTERRUPTED,
                     absl::UnavailableError("the worker is draining")};
    }
  }
  if (is_busy) {
    return Failure{v1::AttemptFailed::INTERNAL,
                   absl::FailedPreconditionError(
                       absl::StrCat("the worker runs ", kMaxAttempts, " attempt at a time"))};
  }
  if (absl::Status spool = attempt.spool().status(); !spool.ok()) return SpoolFailure(spool);
  return std::nullopt;
}

void Worker::OnStart(v1::StartAttempt command) {
  const std::string job = command.ref().job_id();
  const int attempt_number = command.ref().attempt();
  const std::string trace = convert::TraceForLog(command.request());
  const bool is_busy = held_.active() >= kMaxAttempts;
  KINO_FAULT_POINT("worker.start.received");
  auto attempt = held_.Add(std::move(command));
  if (!attempt.ok()) {
    // The same command twice. The attempt itself tells of its end.
    spdlog::error("job {} attempt {} is not taken: {}", job, attempt_number,
                  std::string(attempt.status().message()));
    return;
  }
  std::optional<Failure> refusal = Refusal(**attempt, is_busy);
  if (!refusal && !engine_thread_.Enqueue(*attempt)) {
    refusal = Failure{v1::AttemptFailed::INTERNAL,
                      absl::ResourceExhaustedError("too many commands wait on this worker")};
  }
  if (refusal) {
    FailWaitingAttempt(**attempt, *refusal);
  } else {
    spdlog::info("job {} attempt {} taken{}", job, attempt_number, trace);
  }
  link_.Notify();
}

template <typename ModelOrDeviceCommand>
void Worker::EnqueueCommand(ModelOrDeviceCommand command) {
  const int64_t id = command.command_id();
  if (!engine_thread_.Enqueue(std::move(command))) {
    Answer(id, absl::ResourceExhaustedError("too many commands wait on this worker"));
  }
}

void Worker::Answer(int64_t command_id, const absl::Status& status) {
  v1::ModelCommandResult result;
  result.set_command_id(command_id);
  if (!status.ok()) *result.mutable_error() = convert::ToRpc(status);
  link_.SendModelResult(std::move(result));
}

bool Worker::GoesOnDraining(absl::Duration now) {
  link_.SetDraining();
  if (engine_thread_.is_idle() && held_.active() == 0) return false;
  // A model that is loaded for no attempt is of no use any more.
  if (held_.active() == 0) engine_thread_.InterruptCommands();
  if (now < interrupt_at_) return true;
  engine_thread_.InterruptCommands();
  StopAttempts(StopReason::kInterrupted);
  stopping_.Round(now, interrupt_at_);
  if (stopping_.IsOver(options_.stop_grace)) {
    spdlog::critical("the running attempt ignores its interruption");
    _exit(kExitFailed);
  }
  return true;
}

bool Worker::Tick() {
  const absl::Duration now = clock_.Monotonic();
  // Attempts go on without the frontend for as long as their spool has room: whoever comes back
  // says which of them still count.
  link_.CheckLease();
  held_.StopOverdue(now);
  if (absl::Status refused = link_.refused(); !refused.ok()) {
    spdlog::error("{}", std::string(refused.message()));
    StopAttempts(StopReason::kDropped);
    exit_code_ = kExitFailed;
    return false;
  }
  if (engine_thread_.device_lost()) {
    // Its last events may wait for a while to be acknowledged.
    link_.SetDraining();
    // The attempt that met it has told. One that waits behind it has lost nothing.
    StopAttempts(StopReason::kInterrupted);
    exit_code_ = kExitDeviceLost;
    return false;
  }
  {
    absl::MutexLock lock(&mutex_);
    if (!draining_) return true;
  }
  return GoesOnDraining(now);
}

void Worker::TakeSignal() {
  absl::MutexLock lock(&mutex_);
  const absl::Duration now = clock_.Monotonic();
  // A second signal means now.
  const bool is_second = draining_ && interrupt_at_ != absl::InfiniteDuration();
  interrupt_at_ = is_second ? now : now + options_.drain_deadline;
  draining_ = true;
  spdlog::info("draining");
}

// The frontend may be gone: waits for its acknowledgements, but not for long.
void Worker::WaitUntilSent() {
  for (int i = 0; i < options_.farewell / kFarewellLook && !held_.empty(); ++i)
    absl::SleepFor(kFarewellLook);
}

int Worker::Run() {
  for (const config::ModelConfig& model : options_.models) {
    if (model.preload) engine_thread_.EnqueuePreload(model.name);
  }
  engine_thread_.Start();
  link_.Start();
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  const timespec tick = absl::ToTimespec(kTick);
  do {
    if (sigtimedwait(&signals, nullptr, &tick) > 0) TakeSignal();
  } while (Tick());

  WaitUntilSent();
  if (exit_code_ == kExitDeviceLost) {
    spdlog::critical("the device is lost; this process ends");
    spdlog::shutdown();
    // Destructors may hang on a dead device.
    _exit(kExitDeviceLost);
  }
  link_.Stop();
  profiler_.Stop();
  engine_thread_.InterruptCommands();
  engine_thread_.Stop();
  models_.UnloadAll();
  spdlog::info("ended");
  return exit_code_;
}

}  // namespace

int RunWorker(const WorkerOptions& options, const scheduler::Clock& clock,
              const EngineFactory& make_engine, const MediaDecoder& decode) {
  if (absl::Status status = PrepareSpoolFolder(*options.files, options.spool_folder);
      !status.ok()) {
    spdlog::critical("{}", std::string(status.message()));
    return kExitFailed;
  }
  auto engine = make_engine(options.engine);
  if (!engine.ok()) {
    spdlog::critical("the engine cannot start on '{}': {}", options.engine.device,
                     std::string(engine.status().message()));
    return kExitFailed;
  }
  return Worker(options, clock, *std::move(engine), decode).Run();
}

}  // namespace kino::worker
