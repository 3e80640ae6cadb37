// One LTX-Video run: encode_text, encode_media (of the conditions), denoise, decode. LTXPipeline's,
// LTXImageToVideoPipeline's or LTXConditionPipeline's, as the request's knobs say (describe.h).
// With two passes there are upscale, encode_media and denoise once more before the decode. One
// thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/models/common/family_run.h"
#include "engine/models/ltx/knobs.h"
#include "engine/models/ltx/pipeline.h"
#include "engine/models/ltx/tokens.h"

namespace kino::engine {

// RunState::latents is float32 [1, S, C], packed, the conditions' own tokens first; behind the
// upscale stage and from the decode stage on [1, C, F, h, w]. RunState::condition is what they were
// before the first step, kept where noise is added to what conditions hold.
class LtxRun final : public FamilyRun<LtxComponents> {
 public:
  explicit LtxRun(Inputs inputs);

 private:
  // What is denoised in one go.
  struct Pass {
    Request request;
    LtxTokens tokens;
    FlowMatchSchedule schedule;
    int first_step;  // of the schedule
    int steps() const { return static_cast<int>(schedule.timesteps.size()) - first_step; }
  };

  static std::vector<Pass> MakePasses(const LtxComponents& components, const Request& request,
                                      const std::vector<MediaInput>& media);
  // The stages of a pass, behind those that are there.
  void AddPass(const Pass& pass, double share);
  void EncodeText(const RunContext& context);
  void EncodeConditions(const Pass& pass, const RunContext& context);
  at::Tensor DrawNoise(const LatentGrid& grid, int64_t frames);
  // [1, C, F, h, w]: noise, and in a second pass what the first one left in it.
  at::Tensor StartLatents(const Pass& pass);
  void PrepareDenoise(const Pass& pass, const RunContext& context);
  at::Tensor NoisedConditions(const Pass& pass, float timestep);
  // Of these tokens in a step at this timestep.
  static float TimestepOf(const LtxHeldTokens& held, float timestep);
  void Denoise(const Pass& pass, const RunContext& context);
  // Those of the video, normalised, [1, C, F, h, w].
  at::Tensor VideoLatents(const Pass& pass) const;
  void Upscale(const RunContext& context);
  std::unique_ptr<DecodeStream> StartDecode();
  void Drop(Stage stage) override;
  const LtxVae& vae() const { return *components_->vae; }

  const LtxKnobs knobs_;

  const bool is_condition_pipeline_;
  const std::vector<Pass> passes_;
  std::vector<LtxTransformer::Prepared> prepared_;
};

}  // namespace kino::engine
