// One run of LTX-Video's long videos: encode_text (a prompt for each window), encode_media (of the
// first frame), denoise (one window after the other), decode. One thread at a time. Source:
// diffusers 0.42.1 pipelines/ltx/pipeline_ltx_i2v_long_multi_prompt.py.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/models/common/family_run.h"
#include "engine/models/common/latents.h"
#include "engine/models/ltx/knobs.h"
#include "engine/models/ltx/long_windows.h"
#include "engine/models/ltx/pipeline.h"

namespace kino::engine {

// The prompts between the bars of one, without white space around them; there is at least one.
std::vector<std::string> PromptSegments(const std::string& prompt);

// RunState::latents is the whole video's, float32 [1, C, F, h, w], zeros behind the windows that
// are done; RunState::window those of the window that is denoised, packed, with the frames that it
// only looks at behind its own. RunState::condition is the first frame's, [1, C, 1, h, w],
// RunState::reference the first window's result, RunState::noise what this window draws.
class LtxLongRun final : public FamilyRun<LtxComponents> {
 public:
  explicit LtxLongRun(Inputs inputs);

 private:
  // What is the same in all steps of a window.
  struct Window {
    size_t index;
    LtxWindow place;
    std::vector<LtxTransformer::Prepared> rows = {};
    TokenSpans spans = {};  // of the first step; the row of step i is i further on
    at::Tensor held = {};   // [1, S, C], what the tokens are to become so far as they are held
    at::Tensor free = {};   // [1, S, 1], how far they are not
  };

  void EncodeText(const RunContext& context);
  void EncodeFirstFrame(const RunContext& context);
  Window PrepareWindow(size_t index, const RunContext& context) const;
  void Denoise(const RunContext& context);
  at::Tensor Predict(size_t step, const RunContext& context) const;
  void FinishWindow();
  std::unique_ptr<DecodeStream> StartDecode();
  void Drop(Stage stage) override;
  int64_t PixelFrames() const;
  const LtxVae& vae() const { return *components_->vae; }

  const LtxKnobs knobs_;

  const LtxWindowSizes sizes_;
  const LatentGrid grid_;
  const std::vector<LtxWindow> windows_;
  const FlowMatchSchedule schedule_;  // of each window
  std::optional<Window> window_;
};

}  // namespace kino::engine
