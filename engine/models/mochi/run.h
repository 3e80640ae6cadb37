// One Mochi-1 run: encode_text, denoise, decode. One thread at a time.
#pragma once

#include <memory>
#include <optional>

#include "engine/models/common/family_run.h"
#include "engine/models/mochi/pipeline.h"

namespace kino::engine {

// RunState::latents is [1, C, F, h, w] in the text encoder's dtype; from the decode stage on in the
// VAE's.
class MochiRun final : public FamilyRun<MochiComponents> {
 public:
  explicit MochiRun(Inputs inputs);

 private:
  void EncodeText(const RunContext& context);
  void Denoise(const RunContext& context);
  std::unique_ptr<DecodeStream> StartDecode();
  void Drop(Stage stage) override {
    if (stage == Stage::kDenoise) prepared_.reset();
  }

  MochiGrid grid_;
  FlowMatchSchedule schedule_;
  std::optional<MochiTransformer::Prepared> prepared_;
};

}  // namespace kino::engine
