// One LTX-Video run: encode_text, encode_media (of the conditions), denoise, decode. LTXPipeline's,
// LTXImageToVideoPipeline's or LTXConditionPipeline's, as the request's knobs say (describe.h). One
// thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/models/common/staged_run.h"
#include "engine/models/ltx/knobs.h"
#include "engine/models/ltx/pipeline.h"
#include "engine/models/ltx/tokens.h"

namespace kino::engine {

// RunState::latents is float32 [1, S, C], packed, the conditions' own tokens first; from the decode
// stage on [1, C, F, h, w]. RunState::condition is what they were before the first step, kept where
// noise is added to what conditions hold.
class LtxRun final : public StagedRun {
 public:
  // `embeddings` outlives the run.
  LtxRun(std::shared_ptr<const LtxComponents> components, EmbeddingCache* embeddings,
         const Request& request, std::vector<MediaInput> media, Tap tap);

 private:
  void EncodeText(const RunContext& context);
  void EncodeConditions(const RunContext& context);
  at::Tensor EncodeCondition(size_t index, const RunContext& context);
  at::Tensor DrawNoise(int64_t frames);
  void PrepareDenoise(const RunContext& context);
  at::Tensor NoisedConditions(float timestep);
  // Of these tokens in a step at this timestep.
  float TimestepOf(const LtxHeldTokens& held, float timestep) const;
  void Denoise(const RunContext& context);
  void PrepareDecode();
  void Decode(const RunContext& context, const FrameSink& sink);
  void Drop(Stage stage) override;
  const LtxVae& vae() const { return *components_->vae; }

  const LtxKnobs knobs_;
  std::shared_ptr<const LtxComponents> components_;
  EmbeddingCache* embeddings_;
  std::vector<MediaInput> media_;
  Tap tap_;

  const bool is_condition_pipeline_;
  const LtxTokens tokens_;
  const FlowMatchSchedule schedule_;
  const int first_step_;  // of the schedule
  std::vector<LtxTransformer::Prepared> prepared_;
  std::unique_ptr<DecodeStream> decoder_;
};

}  // namespace kino::engine
