// One Allegro run: encode_text, denoise, decode. One thread at a time.
#pragma once

#include <memory>
#include <optional>

#include "engine/models/allegro/pipeline.h"
#include "engine/models/common/family_run.h"

namespace kino::engine {

// RunState::latents is [1, C, F, h, w], before the first step in the text encoder's dtype, behind
// it in the transformer's; in the decode stage in the VAE's.
class AllegroRun final : public FamilyRun<AllegroComponents> {
 public:
  explicit AllegroRun(Inputs inputs);

 private:
  void EncodeText(const RunContext& context);
  void Denoise(const RunContext& context);
  std::unique_ptr<DecodeStream> StartDecode();
  void Drop(Stage stage) override {
    if (stage == Stage::kDenoise) prepared_.reset();
  }

  LatentGrid grid_;
  EulerAncestralSchedule schedule_;
  std::optional<AllegroTransformer::Prepared> prepared_;
};

}  // namespace kino::engine
