// One LTX-Video run: encode_text, encode_media (image_to_video), denoise, decode. One thread at a
// time.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/models/common/staged_run.h"
#include "engine/models/ltx/knobs.h"
#include "engine/models/ltx/pipeline.h"

namespace kino::engine {

// RunState::latents is float32 [1, S, C], packed; from the decode stage on [1, C, F, h, w].
class LtxRun final : public StagedRun {
 public:
  // `embeddings` outlives the run.
  LtxRun(std::shared_ptr<const LtxComponents> components, EmbeddingCache* embeddings,
         const Request& request, std::vector<MediaInput> media, Tap tap);

 private:
  void EncodeText(const RunContext& context);
  void EncodeImage(const RunContext& context);
  void PrepareLatents(const at::Tensor& first_frame);
  void PrepareDenoise(const RunContext& context);
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

  LtxGrid grid_;
  FlowMatchSchedule schedule_;
  std::vector<LtxTransformer::Prepared> prepared_;
  std::unique_ptr<DecodeStream> decoder_;
};

}  // namespace kino::engine
