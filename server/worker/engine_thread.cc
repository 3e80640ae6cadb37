#include "server/worker/engine_thread.h"

#include <pthread.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace kino::worker {
namespace {

// Commands beyond are refused: a frontend that sends so many is broken.
constexpr size_t kMaxQueuedCommands = 64;

}  // namespace

EngineThread::EngineThread(engine::Engine& engine, Models& models, MediaDecoder decode,
                           media::DecodeOptions decode_options, const scheduler::Clock& clock,
                           std::function<void()> notify, Answer answer)
    : engine_(engine),
      models_(models),
      decode_(std::move(decode)),
      decode_options_(std::move(decode_options)),
      clock_(clock),
      notify_(std::move(notify)),
      answer_(std::move(answer)) {}

EngineThread::~EngineThread() { Stop(); }

void EngineThread::Start() {
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "engine");
    Loop();
  });
}

void EngineThread::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    commands_.clear();
    stopping_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

bool EngineThread::Enqueue(std::shared_ptr<HeldAttempt> attempt) {
  return Push(std::move(attempt));
}
bool EngineThread::Enqueue(v1::LoadModelCommand command) { return Push(std::move(command)); }
bool EngineThread::Enqueue(v1::UnloadModelCommand command) { return Push(std::move(command)); }
bool EngineThread::Enqueue(v1::CheckDeviceCommand command) { return Push(std::move(command)); }
bool EngineThread::EnqueuePreload(std::string model) {
  return Push(PreloadModel{std::move(model)});
}

bool EngineThread::Push(Command command) {
  absl::MutexLock lock(&mutex_);
  if (commands_.size() >= kMaxQueuedCommands) return false;
  commands_.push_back(std::move(command));
  changed_.SignalAll();
  return true;
}

bool EngineThread::is_idle() const {
  absl::MutexLock lock(&mutex_);
  return commands_.empty() && !busy_;
}

int64_t EngineThread::progress_counter() const {
  absl::MutexLock lock(&mutex_);
  return commands_pulse_.counter() + ended_progress_ +
         (running_ != nullptr ? running_->pulse().counter() : 0);
}

void EngineThread::Loop() {
  while (true) {
    Command command;
    {
      absl::MutexLock lock(&mutex_);
      while (!stopping_ && commands_.empty()) changed_.Wait(&mutex_);
      if (stopping_) return;
      command = std::move(commands_.front());
      commands_.pop_front();
      busy_ = true;
    }
    Execute(command);
    const bool is_lost = engine_.device_lost();
    device_lost_.store(is_lost);
    absl::MutexLock lock(&mutex_);
    busy_ = false;
    if (is_lost) return;
  }
}

void EngineThread::Execute(const Command& command) {
  if (const auto* attempt = std::get_if<std::shared_ptr<HeldAttempt>>(&command)) {
    RunAttempt(*attempt);
    return;
  }
  if (const auto* load = std::get_if<v1::LoadModelCommand>(&command)) {
    const absl::Status status = Load(load->model());
    MeasureMemory();
    answer_(load->command_id(), status);
  } else if (const auto* unload = std::get_if<v1::UnloadModelCommand>(&command)) {
    const absl::Status status = models_.Unload(unload->model());
    MeasureMemory();
    answer_(unload->command_id(), status);
  } else if (const auto* check = std::get_if<v1::CheckDeviceCommand>(&command)) {
    const absl::Status status = engine_.CheckDevice();
    if (!status.ok()) {
      spdlog::error("the device's check failed: {}", std::string(status.message()));
    }
    answer_(check->command_id(), status);
  } else if (const auto* preload = std::get_if<PreloadModel>(&command)) {
    // What is wrong has been logged.
    Load(preload->name).IgnoreError();
    MeasureMemory();
  }
  commands_pulse_.work().Count();
}

absl::Status EngineThread::Load(const std::string& model) {
  const absl::Status status = models_.Load(model, &interrupted_, &commands_pulse_.work()).status();
  if (!interrupted_.cancelled() || status.ok()) return status;
  return absl::UnavailableError(
      absl::StrCat("model '", model, "' was not loaded: the worker was asked to stop"));
}

void EngineThread::RunAttempt(const std::shared_ptr<HeldAttempt>& attempt) {
  {
    absl::MutexLock lock(&mutex_);
    running_ = attempt;
  }
  worker::RunAttempt({.engine = engine_,
                      .models = models_,
                      .decode = decode_,
                      .decode_options = decode_options_,
                      .clock = clock_,
                      .notify = notify_,
                      .measure_memory = [this] { MeasureMemory(); }},
                     *attempt);
  absl::MutexLock lock(&mutex_);
  // The end counts too, so that one attempt that fails behind another is no standstill.
  ended_progress_ += attempt->pulse().counter() + 1;
  running_ = nullptr;
}

}  // namespace kino::worker
