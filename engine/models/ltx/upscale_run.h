// LTX-Video's latent upsampling of a video: encode_media, upscale, decode; no text and no steps.
// One thread at a time. Source: diffusers 0.42.1 pipelines/ltx/pipeline_ltx_latent_upsample.py.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/models/common/family_run.h"
#include "engine/models/common/pipeline.h"
#include "engine/models/ltx/knobs.h"
#include "engine/models/ltx/latent_upsampler.h"
#include "engine/models/ltx/vae.h"

namespace kino::engine {

// What a run reads. Runs share it.
struct LtxUpscaleComponents {
  std::shared_ptr<LtxLatentUpsampler> latent_upsampler;
  std::shared_ptr<LtxVae> vae;
};

// The folder's, which fits its VAE.
absl::StatusOr<std::shared_ptr<LtxLatentUpsampler>> LoadLatentUpsampler(
    const PipelineOptions& options, EngineShared& shared, const LtxVae& vae);

absl::StatusOr<std::unique_ptr<Pipeline>> LoadLtxUpscalePipeline(const PipelineOptions& options,
                                                                 EngineShared& shared);

// RunState::latents is [1, C, F, h, w]: normalised and of the video's size until the upscale stage
// ends, then denormalised.
class LtxUpscaleRun final : public FamilyRun<LtxUpscaleComponents> {
 public:
  explicit LtxUpscaleRun(Inputs inputs);

 private:
  void EncodeMedia(const RunContext& context);
  void Upscale(const RunContext& context);
  std::unique_ptr<DecodeStream> StartDecode();

  const LtxKnobs knobs_;
};

}  // namespace kino::engine
