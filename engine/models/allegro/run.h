// One Allegro run: encode_text, denoise, decode. One thread at a time.
#pragma once

#include <memory>
#include <optional>

#include "engine/models/allegro/pipeline.h"
#include "engine/models/common/staged_run.h"

namespace kino::engine {

// RunState::latents is [1, C, F, h, w], before the first step in the text encoder's dtype, behind
// it in the transformer's; in the decode stage in the VAE's.
class AllegroRun final : public StagedRun {
 public:
  // `embeddings` outlives the run.
  AllegroRun(std::shared_ptr<const AllegroComponents> components, EmbeddingCache* embeddings,
             const Request& request, std::vector<MediaInput> media, Tap tap);

 private:
  void EncodeText(const RunContext& context);
  void Denoise(const RunContext& context);
  void PrepareDecode();
  void Decode(const RunContext& context, const FrameSink& sink);
  void Drop(Stage stage) override;

  std::shared_ptr<const AllegroComponents> components_;
  EmbeddingCache* embeddings_;
  Tap tap_;

  LatentGrid grid_;
  EulerAncestralSchedule schedule_;
  std::optional<AllegroTransformer::Prepared> prepared_;
  std::unique_ptr<DecodeStream> decoder_;
};

}  // namespace kino::engine
