// The engine's public door: load a model, start a run, advance it. No torch, no protobuf.
//
// Threads: an Engine, its Models and its Runs belong to one thread at a time. A CancelToken may be
// set from any thread. Errors: absl::Status everywhere; RESOURCE_EXHAUSTED is out of memory (host
// or device), CANCELLED a set token, INTERNAL with Engine::device_lost() an accelerator error after
// which the process must end.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/core/cancel.h"
#include "engine/core/work_counter.h"
#include "engine/describe/compute_dtypes.h"
#include "engine/describe/describe.h"
#include "engine/describe/profile.h"
#include "engine/describe/request.h"
#include "engine/describe/stage.h"

namespace kino::engine {

struct StageStats {
  Stage stage;
  double seconds = 0;
  // Highest sum of live tensor bytes while the stage ran. On the CPU both are the host's. Mapped
  // weight files do not count.
  int64_t peak_device_bytes = 0;
  int64_t peak_host_bytes = 0;
  // Of the device's bytes, those that weights took: slots and resident copies.
  int64_t peak_weight_bytes = 0;
  // Steps, tiles or chunks that were timed, and the median of the latest; 0: none.
  int steps = 0;
  double step_seconds = 0;
};

struct RunProgress {
  int pass = 1;
  int total_passes = 1;
  Stage stage = Stage::kEncodeText;
  int step = 0;  // finished steps of the stage
  int total_steps = 0;
  double fraction = 0;  // of the run, 0..1; never falls
  std::optional<double> eta_seconds;
};

// How far a run is, for whoever judges whether it hangs.
struct RunPulse {
  Stage stage = Stage::kEncodeText;  // as in RunProgress
  int steps = 0;                     // the same
  // Rises with every step, block, tile and chunk that is done; on a device, once the device has
  // done it.
  uint64_t counter = 0;
  // The device's, of the stage's latest steps: the median; 0: none is known yet.
  double step_seconds = 0;
};

// Decoded pixels of one condition: RGB, [num_frames, height, width, 3].
struct MediaInput {
  int width = 0;
  int height = 0;
  int num_frames = 0;
  double fps = 0;  // of a video that says it; else 0
  std::vector<uint8_t> rgb;
};

// Final frames in order, float32 in 0..1, [num_frames, height, width, 3]; valid during the call
// only.
struct FloatFrames {
  int first_frame = 0;
  int num_frames = 0;
  int height = 0;
  int width = 0;
  const float* data = nullptr;
};

// Where the result goes. Exactly one is set. A status other than OK ends the run with it.
struct RunOutput {
  // A fragmented MP4, in order: one call at a time, on a thread of the run's own, while there is
  // more to Advance. Once Advance has returned false or an error, or the run is destroyed, no call
  // comes any more.
  std::function<absl::Status(std::string_view bytes)> mp4;
  std::function<absl::Status(const FloatFrames&)> frames;
};

// Intermediates for parity: a name and float32 values. See tests/parity.
using Tap =
    std::function<void(std::string_view name, absl::Span<const int64_t> shape, const float* data)>;

struct RunResult {
  std::vector<StageStats> stages;
  std::vector<double> step_seconds;
  double first_chunk_seconds = 0;  // from the run's start to the first bytes or frames
  int64_t output_bytes = 0;
  int width = 0;
  int height = 0;
  int num_frames = 0;
  double fps = 0;
  Plan plan;  // what ran
};

// One attempt inside the engine.
class Run {
 public:
  virtual ~Run() = default;
  // Does one step, tile or chunk. False once the run is finished. After an error the run must be
  // destroyed.
  virtual absl::StatusOr<bool> Advance() = 0;
  virtual const RunProgress& progress() const = 0;
  // Any thread, also while another is inside Advance; does not block.
  virtual RunPulse pulse() const = 0;
  // REQUIRES: Advance returned false.
  virtual const RunResult& result() const = 0;
};

struct RunOptions {
  RunOutput output;
  const CancelToken* cancel = nullptr;
  Tap tap;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelDescription& description() const = 0;
  virtual const StageStats& load_stats() const = 0;
  // `request` is effective; `media` holds one entry per condition. INVALID_ARGUMENT names what does
  // not fit.
  virtual absl::StatusOr<std::unique_ptr<Run>> Start(const Request& request,
                                                     std::vector<MediaInput> media,
                                                     RunOptions options) = 0;
};

struct ModelOptions {
  std::string folder;
  // GGUF or single-file safetensors in place of the folder's components.
  OriginalFiles original_files = {};
  ComputeDTypes dtype = {};
  // Which weight files, as diffusers' variant: "fp16", say; empty: the plain ones. A component that
  // has none of it is read from its plain ones, and the log says so.
  std::string variant = "";
  // What requests go by that bring no plan of their own; theirs is merged over it.
  Plan plan = {};
  // Whether a plan that Kino chooses (Plan::mode) may be lossy.
  bool allow_lossy = false;
};

// What runs of such a model need on a GPU or this CPU, without loading its weights. dtype: of
// computation, as ModelOptions'. Nothing is read before it is asked. What a request leaves open is
// filled in; INVALID_ARGUMENT: a field of it is wrong.
std::shared_ptr<ProfileSource> ProfilesOf(const ModelDescription& description,
                                          const ComputeDTypes& dtype, bool on_gpu);

struct EngineOptions {
  std::string device = "cpu";  // or "cuda:N"
  // Threads on the CPU; 0: DefaultThreads(UsableCores()), see core/machine.h.
  int threads = 0;
};

class Engine {
 public:
  // INVALID_ARGUMENT: an unknown device name. FAILED_PRECONDITION: no such device, or a build
  // without CUDA.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options);
  virtual ~Engine() = default;
  // Models that name the same component files share them. Looks at `cancel` in front of each
  // component and weight: after CANCELLED nothing of the model is held, and what another model
  // shares with it is brought anew by that one's next run. `counter`: counts components and
  // weights; may be null.
  virtual absl::StatusOr<std::shared_ptr<Model>> Load(const ModelOptions& options,
                                                      const CancelToken* cancel,
                                                      WorkCounter* counter = nullptr) = 0;
  // Computes a product, a convolution and an attention of numbers that are always the same, without
  // a model, and holds them against what they must give. INTERNAL: the device computes wrongly; the
  // message names the operator, what was expected and what came. Else as a run fails.
  virtual absl::Status CheckDevice() = 0;
  // Of a model's runs on this device, whether or not it is loaded; weights are not read. May be
  // called, and what it gives asked, on any thread while a run goes on. Errors: DescribeModel's.
  virtual absl::StatusOr<std::shared_ptr<ProfileSource>> Profiles(
      const ModelOptions& options) const = 0;
  virtual std::string device_name() const = 0;
  virtual int64_t device_memory_bytes() const = 0;
  virtual int64_t device_memory_used_bytes() const = 0;
  // After an accelerator error: every later call fails, and the process must end.
  virtual bool device_lost() const = 0;
};

}  // namespace kino::engine
