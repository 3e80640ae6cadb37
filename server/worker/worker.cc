#include "server/worker/worker.h"

#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <deque>
#include <filesystem>
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/core/machine.h"
#include "server/convert/status.h"
#include "server/worker/held_attempts.h"
#include "server/worker/link.h"
#include "server/worker/models.h"
#include "server/worker/profiler.h"

namespace kino::worker {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kTick = absl::Milliseconds(100);
constexpr int kMaxAttempts = 1;
// Commands beyond are refused: a frontend that sends so many is broken.
constexpr size_t kMaxQueuedCommands = 64;

struct PreloadModel {
  std::string name;
};
using Command = std::variant<std::shared_ptr<HeldAttempt>, v1::LoadModelCommand,
                             v1::UnloadModelCommand, PreloadModel>;

class Worker : public LinkDelegate {
 public:
  Worker(const WorkerOptions& options, std::unique_ptr<engine::Engine> engine,
         const MediaDecoder& decode)
      : options_(options),
        decode_(decode),
        engine_(std::move(engine)),
        models_(*engine_, options.models,
                {.max_device_memory = options.max_device_memory,
                 .max_host_memory = options.max_host_memory}),
        held_(options.spool_folder),
        link_(LinkOptions{.address = options.address}, held_, *this),
        profiler_(models_,
                  [this](v1::ProfileAnswer answer) { link_.SendProfile(std::move(answer)); }) {
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
    heartbeat.set_device_memory_used_bytes(monitor_.device_memory_used_bytes());
    heartbeat.set_progress_counter(monitor_.progress_counter());
    for (v1::WorkerModel& model : models_.List()) *heartbeat.add_models() = std::move(model);
    return heartbeat;
  }
  void OnStart(v1::StartAttempt command) override;
  void OnDrain() override {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  void OnLoadModel(v1::LoadModelCommand command) override { EnqueueModel(std::move(command)); }
  void OnUnloadModel(v1::UnloadModelCommand command) override { EnqueueModel(std::move(command)); }
  void OnProfile(v1::ProfileQuery query) override { profiler_.Ask(std::move(query)); }

 private:
  template <typename ModelCommand>
  void EnqueueModel(ModelCommand command);
  bool Enqueue(Command command);
  void EngineLoop();
  void Execute(const Command& command);
  void Answer(int64_t command_id, const absl::Status& status);
  // The main thread's round; whether the process should go on.
  bool Tick(absl::Time now);
  void WaitUntilSent();
  bool is_idle() {
    absl::MutexLock lock(&mutex_);
    return commands_.empty() && !busy_;
  }

  const WorkerOptions& options_;
  const MediaDecoder& decode_;
  std::unique_ptr<engine::Engine> engine_;
  Models models_;
  HeldAttempts held_;
  RunMonitor monitor_;
  v1::WorkerHello hello_;
  Link link_;
  Profiler profiler_;

  int exit_code_ = kExitDrained;
  absl::Time interrupt_at_ = absl::InfiniteFuture();
  absl::Mutex mutex_;
  absl::CondVar changed_;
  std::deque<Command> commands_ ABSL_GUARDED_BY(mutex_);
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_engine_ ABSL_GUARDED_BY(mutex_) = false;
  bool device_lost_ ABSL_GUARDED_BY(mutex_) = false;
};

void Worker::OnStart(v1::StartAttempt command) {
  const std::string job = command.ref().job_id();
  const int attempt_number = command.ref().attempt();
  const bool is_busy = held_.active() >= kMaxAttempts;
  auto attempt = held_.Add(std::move(command));
  if (!attempt.ok()) {
    // Nothing can be said in this attempt's name; the frontend's limit for silent attempts ends it.
    spdlog::error("job {} attempt {} cannot be held: {}", job, attempt_number,
                  std::string(attempt.status().message()));
    return;
  }
  bool is_draining = false;
  {
    absl::MutexLock lock(&mutex_);
    is_draining = draining_;
  }
  if (is_draining) {
    FailAttempt(**attempt, v1::AttemptFailed::INTERRUPTED,
                absl::UnavailableError("the worker is draining"), {});
  } else if (is_busy || !Enqueue(*attempt)) {
    FailAttempt(**attempt, v1::AttemptFailed::INTERNAL,
                absl::FailedPreconditionError(
                    absl::StrCat("the worker runs ", kMaxAttempts, " attempt at a time")),
                {});
  } else {
    spdlog::info("job {} attempt {} taken", job, attempt_number);
  }
  link_.Notify();
}

bool Worker::Enqueue(Command command) {
  absl::MutexLock lock(&mutex_);
  if (commands_.size() >= kMaxQueuedCommands) return false;
  commands_.push_back(std::move(command));
  changed_.SignalAll();
  return true;
}

template <typename ModelCommand>
void Worker::EnqueueModel(ModelCommand command) {
  const int64_t id = command.command_id();
  if (!Enqueue(std::move(command))) {
    Answer(id, absl::ResourceExhaustedError("too many commands wait on this worker"));
  }
}

void Worker::Answer(int64_t command_id, const absl::Status& status) {
  v1::ModelCommandResult result;
  result.set_command_id(command_id);
  if (!status.ok()) *result.mutable_error() = convert::ToRpc(status);
  link_.SendModelResult(std::move(result));
}

void Worker::EngineLoop() {
  pthread_setname_np(pthread_self(), "engine");
  while (true) {
    Command command;
    {
      absl::MutexLock lock(&mutex_);
      while (!stop_engine_ && commands_.empty()) changed_.Wait(&mutex_);
      if (stop_engine_ && commands_.empty()) return;
      command = std::move(commands_.front());
      commands_.pop_front();
      busy_ = true;
    }
    Execute(command);
    const bool is_lost = engine_->device_lost();
    absl::MutexLock lock(&mutex_);
    busy_ = false;
    if (is_lost) {
      device_lost_ = true;
      return;
    }
  }
}

void Worker::Execute(const Command& command) {
  if (const auto* attempt = std::get_if<std::shared_ptr<HeldAttempt>>(&command)) {
    RunAttempt(AttemptContext{*engine_, models_, decode_, monitor_, [this] { link_.Notify(); }},
               **attempt);
    return;
  }
  if (const auto* load = std::get_if<v1::LoadModelCommand>(&command)) {
    Answer(load->command_id(), models_.Load(load->model(), nullptr).status());
  } else if (const auto* unload = std::get_if<v1::UnloadModelCommand>(&command)) {
    Answer(unload->command_id(), models_.Unload(unload->model()));
  } else if (const auto* preload = std::get_if<PreloadModel>(&command)) {
    if (absl::Status status = models_.Load(preload->name, nullptr).status(); !status.ok()) {
      spdlog::error("model {} cannot be loaded: {}", preload->name, std::string(status.message()));
    }
  }
  monitor_.Count();
  monitor_.SetMemoryUsed(engine_->device_memory_used_bytes());
}

bool Worker::Tick(absl::Time now) {
  link_.CheckLease(now);
  held_.StopOverdue(now);
  if (!held_.empty() && now > link_.last_contact() + link_.lease() + options_.reattach_grace) {
    spdlog::error("no word from the frontend for {}: its attempts are given up",
                  absl::FormatDuration(now - link_.last_contact()));
    held_.StopAll(StopReason::kDropped);
  }
  if (absl::Status refused = link_.refused(); !refused.ok()) {
    spdlog::error("{}", std::string(refused.message()));
    held_.StopAll(StopReason::kDropped);
    exit_code_ = kExitFailed;
    return false;
  }
  bool draining = false;
  {
    absl::MutexLock lock(&mutex_);
    if (device_lost_) {
      exit_code_ = kExitDeviceLost;
      return false;
    }
    draining = draining_;
  }
  if (!draining) return true;
  link_.SetDraining();
  if (is_idle() && held_.active() == 0) return false;
  if (now >= interrupt_at_) held_.StopAll(StopReason::kInterrupted);
  if (now >= interrupt_at_ + options_.stop_grace) {
    spdlog::critical("the running attempt ignores its interruption");
    _exit(kExitFailed);
  }
  return true;
}

// The frontend may be gone: waits for its acknowledgements, but not for long.
void Worker::WaitUntilSent() {
  const absl::Time until = absl::Now() + options_.farewell;
  while (!held_.empty() && absl::Now() < until) absl::SleepFor(absl::Milliseconds(10));
}

int Worker::Run() {
  for (const config::ModelConfig& model : options_.models) {
    if (model.preload) Enqueue(PreloadModel{model.name});
  }
  std::thread engine_thread([this] { EngineLoop(); });
  link_.Start();
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  const timespec tick = absl::ToTimespec(kTick);
  do {
    const int signal = sigtimedwait(&signals, nullptr, &tick);
    if (signal <= 0) continue;
    absl::MutexLock lock(&mutex_);
    // A second signal means now.
    interrupt_at_ = draining_ && interrupt_at_ != absl::InfiniteFuture()
                        ? absl::Now()
                        : absl::Now() + options_.drain_deadline;
    draining_ = true;
    spdlog::info("draining");
  } while (Tick(absl::Now()));

  WaitUntilSent();
  if (exit_code_ == kExitDeviceLost) {
    spdlog::critical("the device is lost; this process ends");
    spdlog::shutdown();
    // Destructors may hang on a dead device.
    _exit(kExitDeviceLost);
  }
  link_.Stop();
  profiler_.Stop();
  {
    absl::MutexLock lock(&mutex_);
    commands_.clear();
    stop_engine_ = true;
    changed_.SignalAll();
  }
  engine_thread.join();
  models_.UnloadAll();
  spdlog::info("ended");
  return exit_code_;
}

absl::Status PrepareSpool(const std::string& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  if (!error) fs::create_directories(folder, error);
  if (!error) fs::permissions(folder, fs::perms::owner_all, error);
  if (!error) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("cannot prepare the spool folder '", folder, "': ", error.message()));
}

}  // namespace

int RunWorker(const WorkerOptions& options, const EngineFactory& make_engine,
              const MediaDecoder& decode) {
  if (absl::Status status = PrepareSpool(options.spool_folder); !status.ok()) {
    spdlog::critical("{}", std::string(status.message()));
    return kExitFailed;
  }
  auto engine = make_engine(options.engine);
  if (!engine.ok()) {
    spdlog::critical("the engine cannot start on '{}': {}", options.engine.device,
                     std::string(engine.status().message()));
    return kExitFailed;
  }
  return Worker(options, *std::move(engine), decode).Run();
}

}  // namespace kino::worker
