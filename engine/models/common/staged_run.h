// A run as a list of stages: what every family's run would otherwise write anew, position and
// progress, the state that a step starts from, repeating it under another plan. A family derives
// from it and says what each stage does. One thread at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/models/common/noise.h"
#include "engine/models/common/pipeline.h"
#include "engine/models/common/vae_tiles.h"

namespace kino::engine {

// Everything of a run that changes from step to step, and all that a saved run would have to hold.
struct RunState {
  size_t stage = 0;  // in the run's list
  int step = 0;      // finished in this stage
  at::Tensor latents = {};
  std::vector<at::Tensor> text = {};         // of each row of the batch, negative first when guided
  std::vector<at::Tensor> pooled_text = {};  // likewise, of a second text encoder
  at::Tensor condition = {};  // latents that the transformer sees beside these in each step
  at::Tensor image = {};      // what an image encoder says of the condition
  at::Tensor denoised = {};   // what a sampler remembers of the step before
  at::Tensor window = {};     // of a video that is made in windows: the latents of this one
  at::Tensor reference = {};  // latents whose statistics it gets
  at::Tensor tail = {};       // frames that are decoded and fade into the next stage's
  NoiseSource noise;
  // With generators of its own; tensors are shared, since none is written to.
  RunState Clone() const;
};

class StagedRun : public PipelineRun {
 public:
  std::vector<StageShare> stages() const final;
  Position position() const final;
  void Advance(const RunContext& context, const FrameSink& sink) final;
  void Retry(const Plan& plan) final;
  void SkipStage() final;

 protected:
  using Step = std::function<void(const RunContext& context)>;

  // components: what the family's decoder reads; kept at least as long as that.
  explicit StagedRun(const Request& request, std::shared_ptr<const void> components = nullptr)
      : request_(request),
        state_{.noise = NoiseSource(*request.seed)},
        components_(std::move(components)),
        before_(state_.Clone()) {}

  // Behind those that are there. `share` of the run's time, for the progress bar only. `step` does
  // one or several of `total_steps` and ends with Finish, or is done again by Retry.
  void AddStage(Stage stage, double share, int total_steps, Step step);
  // The same with a member function of the family's run.
  template <typename Run>
  void AddStage(Stage stage, double share, int total_steps,
                void (Run::*step)(const RunContext& context)) {
    AddStage(stage, share, total_steps,
             [run = static_cast<Run*>(this), step](const RunContext& context) {
               (run->*step)(context);
             });
  }
  // A stage that gives the frames of the decoder that `start` makes of the state: the last one, or
  // one for each part of a video that is made in parts. It starts over when a step of it is
  // repeated.
  using StartDecode = std::function<std::unique_ptr<DecodeStream>()>;
  void AddDecode(double share, int frames, StartDecode start);
  // The same with a member function of the family's run.
  template <typename Run>
  void AddDecode(double share, int frames, std::unique_ptr<DecodeStream> (Run::*start)()) {
    AddDecode(share, frames, [run = static_cast<Run*>(this), start] { return (run->*start)(); });
  }
  // The stages that are added from here on are another pass over the video.
  void BeginPass() { ++passes_; }
  // So many more steps of this stage are finished. `is_last`: nothing of the stage is left, the
  // next one begins; behind the last the run is done.
  void Finish(int steps, bool is_last);
  // With classifier-free guidance.
  virtual bool guided() const { return *request_.guidance_scale > 1.0; }
  // Of each row of the batch.
  std::vector<std::optional<std::string>> Prompts() const;
  // The stage has ended: what the family keeps for it beside the state is of no use.
  virtual void Drop(Stage) {}

  Request request_;
  RunState state_;

 private:
  struct Entry {
    Stage stage;
    double share;
    int total_steps;
    Step step;                 // none of a decode
    StartDecode start_decode;  // of a decode
    int pass;
  };

  void Decode(const RunContext& context, const FrameSink& sink);
  void Enter(size_t index);

  std::shared_ptr<const void> components_;
  std::vector<Entry> entries_;
  std::unique_ptr<DecodeStream> decoder_;
  int passes_ = 1;
  bool is_done_ = false;
  bool is_decoding_ = false;  // a step of this decode stage has begun
  RunState before_;           // the step that runs, or all of this decode stage
};

}  // namespace kino::engine
