// One Mochi-1 run: encode_text, denoise, decode. One thread at a time.
#pragma once

#include <memory>
#include <optional>

#include "engine/models/common/staged_run.h"
#include "engine/models/mochi/pipeline.h"

namespace kino::engine {

// RunState::latents is [1, C, F, h, w] in the text encoder's dtype; from the decode stage on in the
// VAE's.
class MochiRun final : public StagedRun {
 public:
  // `embeddings` outlives the run.
  MochiRun(std::shared_ptr<const MochiComponents> components, EmbeddingCache* embeddings,
           const Request& request, std::vector<MediaInput> media, Tap tap);

 private:
  void EncodeText(const RunContext& context);
  void Denoise(const RunContext& context);
  void PrepareDecode();
  void Decode(const RunContext& context, const FrameSink& sink);
  void Drop(Stage stage) override;

  std::shared_ptr<const MochiComponents> components_;
  EmbeddingCache* embeddings_;
  Tap tap_;

  MochiGrid grid_;
  FlowMatchSchedule schedule_;
  std::optional<MochiTransformer::Prepared> prepared_;
  std::unique_ptr<DecodeStream> decoder_;
};

}  // namespace kino::engine
