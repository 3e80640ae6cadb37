// What a family gives the engine: a pipeline that starts runs, and runs that do one step, tile or
// chunk at a time. planned_run turns exceptions into statuses, keeps the clock and the memory
// statistics, and muxes. One thread at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/engine.h"
#include "engine/memory/component.h"
#include "engine/models/common/component_pool.h"
#include "engine/text/embedding_cache.h"

namespace kino::engine {

// A chunk of final frames, in order, as the VAE gives them: [T, H, W, 3] in -1..1, on the run's
// device and in the VAE's dtype. ops/video_frames makes floats or bytes of them.
using FrameSink = std::function<void(const at::Tensor& pixels)>;

class PipelineRun {
 public:
  struct Position {
    Stage stage;
    size_t index = 0;  // of the stage in stages()
    int step = 0;      // finished in this stage
    int total_steps = 0;
    double fraction = 0;  // of the run
    bool done = false;
    int pass = 1;
    int total_passes = 1;
  };

  virtual ~PipelineRun() = default;
  struct StageShare {
    Stage stage;
    double share;  // of the run's time, roughly
  };
  // The stages it goes through, in order. A kind of stage may come more than once.
  virtual std::vector<StageShare> stages() const = 0;
  // Where the next Advance starts.
  virtual Position position() const = 0;
  // REQUIRES: !position().done. Throws StatusError (CANCELLED among them) and what torch throws.
  virtual void Advance(const RunContext& context, const FrameSink& sink) = 0;
  // After an Advance that ran out of memory: the next one does the same again under `plan`. A stage
  // that gives frames starts over, and gives them all once more.
  virtual void Retry(const Plan& plan) = 0;
  // The next Advance starts the next stage; what is left of this one is not computed. For traces:
  // what it would have changed is left with its shape, not its values. REQUIRES: there is one.
  virtual void SkipStage() = 0;
};

// Where a model's components come from.
struct PipelineOptions {
  std::string folder;
  OriginalFiles original_files;
  std::string variant;
  ComputeDTypes dtype;  // "auto" is settled
  c10::Device device;
  // ModelDescription's, for a family that runs several.
  std::string pipeline_class = "";
  // Looked at in front of each component, and counted on.
  RunContext context = {};
};

// A component and the stages that use it.
struct PipelineComponent {
  std::string name;
  std::shared_ptr<Component> component;
  std::vector<Stage> stages;
  bool is_autoencoder = false;
};

class Pipeline {
 public:
  virtual ~Pipeline() = default;
  // In the order their first stages come.
  virtual const std::vector<PipelineComponent>& components() const = 0;
  // `media` holds one entry per condition. `tap` may be empty. The components are configured by
  // whoever advances the run.
  virtual std::unique_ptr<PipelineRun> Start(const Request& request, std::vector<MediaInput> media,
                                             Tap tap) = 0;
};

// Shared by all models of a worker.
struct EngineShared {
  ComponentPool components;
  EmbeddingCache embeddings{int64_t{256} << 20};
  std::shared_ptr<StagingSlabs> staging = std::make_shared<StagingSlabs>();
};

// Calls `tap` with a float32 host copy of `values`.
void TapTensor(const Tap& tap, std::string_view name, const at::Tensor& values);

}  // namespace kino::engine
