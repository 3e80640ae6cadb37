// An engine without torch that does what its job's prompt says, so that server code can be tested
// against slow, hung, dying and failing runs. The output is a made-up byte stream (or made-up
// frames), the same for the same seed. The script is the prompt's key=value words:
//   steps=N         denoise steps (default: the request's num_inference_steps, else 4)
//   step_ms=N       time of each step
//   chunks=N chunk_bytes=N   output (default 3 chunks of 1000 bytes)
//   at=N do=WHAT    at the start of step N (from 0; the chunks follow the steps): oom, invalid,
//   internal, deadline, device_lost,
//                   abort, kill, exit, hang (until cancelled), deaf (hangs, ignores the token) or
//                   wait
//   once=FILE       "do" only if FILE does not exist; it is created
//   touch=FILE      created when step "at" is reached
//   offload=POLICY  what the result says ran, whatever was asked for
//   until=FILE      do=wait ends when FILE exists, or the run is cancelled
// A model folder may hold a file load_script with words of the same kind:
//   groups=N        groups of weights, each of which counts (default 1)
//   do=WHAT         behind the first group: wait (until FILE of "until" exists, or the load is
//                   cancelled), deaf (the same, but ignores the token), internal, device_lost
//   then=WHAT       what happens behind a wait
//   once=FILE touch=FILE until=FILE   as above
// CheckDevice fails as the file check_script beside the model folders says: do=wrong or
// do=device_lost. FakeEngineOptions names it.
// Threads: as engine.h says.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "engine/engine.h"

namespace kino::support {

// What a run's pulse says of every step, once there is one.
inline constexpr double kFakeStepSeconds = 0.75;

struct FakeEngineOptions {
  int64_t memory_bytes = 1 << 30;
  std::string check_script;
};

class FakeEngine : public engine::Engine {
 public:
  explicit FakeEngine(FakeEngineOptions options = {}) : options_(options) {}

  // NOT_FOUND without the folder, INVALID_ARGUMENT when its model_index.json is missing.
  absl::StatusOr<std::shared_ptr<engine::Model>> Load(const engine::ModelOptions& options,
                                                      const engine::CancelToken* cancel,
                                                      engine::WorkCounter* counter) override;
  absl::Status CheckDevice() override;
  // Made up: one group of weights for each component, activations that grow with the video.
  absl::StatusOr<std::shared_ptr<engine::ProfileSource>> Profiles(
      const engine::ModelOptions& options) const override;
  std::string device_name() const override { return "fake"; }
  int64_t device_memory_bytes() const override { return options_.memory_bytes; }
  int64_t device_memory_used_bytes() const override { return loaded_->load() * 1000; }
  bool device_lost() const override { return device_lost_->load(); }
  // Of the latest Load.
  const engine::ModelOptions& last_options() const { return last_options_; }

 private:
  const FakeEngineOptions options_;
  engine::ModelOptions last_options_;
  std::shared_ptr<std::atomic<bool>> device_lost_ = std::make_shared<std::atomic<bool>>(false);
  std::shared_ptr<std::atomic<int>> loaded_ = std::make_shared<std::atomic<int>>(0);
};

// What such a run puts out for `seed`: `chunks` times `chunk_bytes` bytes.
std::string FakeOutput(uint64_t seed, int chunks, int chunk_bytes);

}  // namespace kino::support
