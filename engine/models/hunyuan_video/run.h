// HunyuanVideo runs: encode_text, perhaps encode_media, denoise, decode. One thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/models/common/family_run.h"
#include "engine/models/common/templated_text.h"
#include "engine/models/hunyuan_video/knobs.h"
#include "engine/models/hunyuan_video/pipeline.h"

namespace kino::engine {

// What the runs of all kinds do alike. Latents are held in float32 until they are decoded.
class HunyuanVideoRun : public FamilyRun<HunyuanVideoComponents> {
 protected:
  explicit HunyuanVideoRun(Inputs inputs);

  bool guided() const override {
    return *knobs_.true_cfg_scale > 1 && request_.negative_prompt.has_value();
  }
  // Sets the state's text and pooled_text.
  void EncodeText(const RunContext& context);
  // Moments of a condition's image, of the request's size.
  at::Tensor EncodeImage(size_t condition, const RunContext& context) const;
  at::Tensor DrawNoise(int64_t frames);
  // For the schedule's steps, on a grid of so many latent frames.
  HunyuanVideoTransformer::Prepared Prepare(int64_t frames, const std::vector<float>& timesteps,
                                            const RunContext& context) const;
  // Of what is prepared. [1, in_channels, F, h, w] -> what the step's noise is, [1, C, F, h, w] in
  // the transformer's dtype.
  at::Tensor Predict(const at::Tensor& input, const RunContext& context) const;
  // The decoder of some of the latents, which it scales and taps.
  std::unique_ptr<DecodeStream> Decode(const at::Tensor& latents,
                                       const std::string& tap_name) const;
  void Drop(Stage stage) override {
    if (stage == Stage::kDenoise) prepared_.reset();
  }

  // Of a typical run's time.
  static constexpr double kTextShare = 0.01, kMediaShare = 0.01, kDenoiseShare = 0.88,
                          kDecodeShare = 0.1;
  const HunyuanVideoKnobs knobs_;
  const FlowMatchSchedule schedule_;
  std::optional<HunyuanVideoTransformer::Prepared> prepared_;  // of the denoise stage

 private:
  std::vector<PromptImage> PromptImages(const RunContext& context) const;
};

// A video that is made in one.
class HunyuanVideoClipRun final : public HunyuanVideoRun {
 public:
  explicit HunyuanVideoClipRun(Inputs inputs);

 private:
  void EncodePrompts(const RunContext& context);
  void EncodeMedia(const RunContext& context);
  // The first frame's tokens are the image's in every step.
  bool replaces() const { return components_->kind == HunyuanVideoKind::kTokenReplace; }
  // Those that the transformer is given: as upstream in the latents' dtype, which is the
  // transformer's from the second step on, and always float32 where an image replaces tokens.
  std::vector<float> Timesteps() const;
  void Denoise(const RunContext& context);
  std::unique_ptr<DecodeStream> StartDecode();

  const int64_t frames_;  // of latents
};

}  // namespace kino::engine
