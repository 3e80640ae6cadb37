// One CogVideoX run: encode_text, perhaps encode_media, denoise, decode. One thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/models/cogvideox/knobs.h"
#include "engine/models/cogvideox/pipeline.h"
#include "engine/models/common/family_run.h"

namespace kino::engine {

// RunState::latents is [1, F, C, h, w] in the text encoder's dtype, as the noise is drawn; from the
// decode stage on [1, C, F, h, w] in the VAE's.
class CogVideoXRun final : public FamilyRun<CogVideoXComponents> {
 public:
  explicit CogVideoXRun(Inputs inputs);

 private:
  void EncodeText(const RunContext& context);
  void EncodeMedia(const RunContext& context);
  at::Tensor DrawNoise();
  void Denoise(const RunContext& context);
  std::unique_ptr<DecodeStream> StartDecode();
  void Drop(Stage stage) override {
    if (stage == Stage::kDenoise) prepared_.reset();
  }

  CogVideoXKnobs knobs_;
  // The latents', with frames in front that fill the first patch up and are not decoded.
  LatentGrid grid_;
  int64_t filling_frames_ = 0;
  double strength_;  // how much of a video is made anew
  DdimSchedule schedule_;
  DdimSolver solver_;
  std::optional<CogVideoXTransformer::Prepared> prepared_;
};

}  // namespace kino::engine
