// The one thread that drives the engine: attempts and commands about models, one after the other,
// in the order they come. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "kino/v1/worker.pb.h"
#include "server/worker/attempt.h"
#include "server/worker/held_attempts.h"
#include "server/worker/models.h"
#include "server/worker/pulse.h"

namespace kino::worker {

class EngineThread {
 public:
  // The answer to a command about a model or the device. On the engine's thread.
  using Answer = std::function<void(int64_t command_id, const absl::Status& status)>;

  // `engine`, `models` and `clock` outlive this. `notify`: an attempt has something to send.
  EngineThread(engine::Engine& engine, Models& models, MediaDecoder decode,
               media::DecodeOptions decode_options, const scheduler::Clock& clock,
               std::function<void()> notify, Answer answer);
  // Stops.
  ~EngineThread();
  void Start();
  // Forgets what waits; returns once what runs has ended.
  void Stop();

  // False: too many commands wait already, and this one is not taken.
  bool Enqueue(std::shared_ptr<HeldAttempt> attempt);
  bool Enqueue(v1::LoadModelCommand command);
  bool Enqueue(v1::UnloadModelCommand command);
  bool Enqueue(v1::CheckDeviceCommand command);
  // Errors are logged.
  bool EnqueuePreload(std::string model);

  // From now on a model is loaded for no command: what runs and waits of those is answered
  // UNAVAILABLE. Attempts are not concerned.
  void InterruptCommands() { interrupted_.Cancel(); }

  bool is_idle() const;
  // The device failed. The thread takes nothing more up.
  bool device_lost() const { return device_lost_.load(); }
  // Rises with everything that is done. Does not wait for the device.
  int64_t progress_counter() const;
  int64_t device_memory_used_bytes() const { return memory_used_.load(); }

 private:
  struct PreloadModel {
    std::string name;
  };
  using Command = std::variant<std::shared_ptr<HeldAttempt>, v1::LoadModelCommand,
                               v1::UnloadModelCommand, v1::CheckDeviceCommand, PreloadModel>;

  bool Push(Command command);
  void Loop();
  void Execute(const Command& command);
  void RunAttempt(const std::shared_ptr<HeldAttempt>& attempt);
  absl::Status Load(const std::string& model);
  void MeasureMemory() { memory_used_.store(engine_.device_memory_used_bytes()); }

  engine::Engine& engine_;
  Models& models_;
  const MediaDecoder decode_;
  const media::DecodeOptions decode_options_;
  const scheduler::Clock& clock_;
  const std::function<void()> notify_;
  const Answer answer_;
  engine::CancelToken interrupted_;
  std::atomic<bool> device_lost_{false};
  std::atomic<int64_t> memory_used_{0};
  Pulse commands_pulse_;
  std::thread thread_;

  mutable absl::Mutex mutex_;
  absl::CondVar changed_;
  std::deque<Command> commands_ ABSL_GUARDED_BY(mutex_);
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<HeldAttempt> running_ ABSL_GUARDED_BY(mutex_);
  int64_t ended_progress_ ABSL_GUARDED_BY(mutex_) = 0;  // of attempts that have ended
};

}  // namespace kino::worker
