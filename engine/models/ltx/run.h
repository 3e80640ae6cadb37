// One LTX-Video run: encode_text, encode_media (image_to_video), denoise, decode. One thread at a
// time.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/models/common/noise.h"
#include "engine/models/ltx/pipeline.h"

namespace kino::engine {

// Everything of a run that changes from step to step, and all that a saved run would have to hold.
struct LtxRunState {
  Stage stage = Stage::kEncodeText;
  int step = 0;        // finished in this stage; frames, when decoding
  at::Tensor latents;  // float32 [1, S, C], packed; [1, C, F, h, w] from the decode stage on
  std::vector<at::Tensor> text;  // negative first when guided; without padding
  NoiseSource noise;
  // With generators of its own; tensors are shared, since none is written to.
  LtxRunState Clone() const;
};

class LtxRun final : public PipelineRun {
 public:
  // `embeddings` outlives the run.
  LtxRun(std::shared_ptr<const LtxComponents> components, EmbeddingCache* embeddings,
         const Request& request, std::vector<MediaInput> media, Tap tap);

  std::vector<Stage> stages() const override;
  Position position() const override;
  void Advance(const RunContext& context, const FrameSink& sink) override;
  void Retry(const Plan& plan) override;
  void SkipTo(Stage stage) override;

 private:
  void EncodeText(const RunContext& context);
  void EncodeImage(const RunContext& context);
  void PrepareLatents(const at::Tensor& first_frame);
  void PrepareDenoise(const RunContext& context);
  void Denoise(const RunContext& context);
  void PrepareDecode();
  void Decode(const RunContext& context, const FrameSink& sink);
  void Enter(Stage stage);
  const LtxVae& vae() const { return *components_->vae; }
  bool guided() const { return *request_.guidance_scale > 1.0; }
  at::Tensor Unpack(const at::Tensor& latents) const;

  std::shared_ptr<const LtxComponents> components_;
  EmbeddingCache* embeddings_;
  Request request_;
  std::vector<MediaInput> media_;
  Tap tap_;

  LtxGrid grid_;
  FlowMatchSchedule schedule_;
  std::vector<LtxTransformer::Prepared> prepared_;
  std::unique_ptr<LtxVaeDecodeStream> decoder_;
  bool done_ = false;
  LtxRunState state_;
  LtxRunState before_;  // the last step, or all of the decode stage
};

}  // namespace kino::engine
