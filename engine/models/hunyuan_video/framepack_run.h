// FramePack runs: a video made in sections, each of which is shown the ones before it at less and
// less resolution (diffusers 0.42.1 pipeline_hunyuan_video_framepack.py). encode_text,
// encode_media, then a denoise for each section; the sections are decoded in the order of time,
// each behind its denoise where they are made in that order too. One thread at a time.
#pragma once

#include <memory>

#include "engine/models/hunyuan_video/run.h"

namespace kino::engine {

// RunState::latents are those of the whole video, zero where a section is yet to be made; window
// are those of the section that is made, and condition those of the first image and, where there is
// one, the last.
class FramePackRun final : public HunyuanVideoRun {
 public:
  explicit FramePackRun(Inputs inputs);

 private:
  // Of a section in the order of time.
  struct Piece {
    int64_t first = 0, latents = 0;  // that are decoded, among those of the whole video
    int64_t frames = 0, held = 0;    // that they give, and that fade into the next one's
  };

  void EncodePrompts(const RunContext& context);
  void EncodeMedia(const RunContext& context);
  // section: by the order in which they are made.
  void Denoise(int section, const RunContext& context);
  void AddSection(int section);
  HunyuanVideoHistory InvertedHistory(int section) const;
  HunyuanVideoHistory VanillaHistory(int section) const;
  // Where a section's latents are among the video's, and those from there on.
  int64_t BeginOf(int section) const;
  at::Tensor LatentsFrom(int64_t begin) const;
  Piece PieceAt(int place) const;
  std::unique_ptr<DecodeStream> StartDecode(int place);
  void AddPiece(int place);

  const bool is_vanilla_;
  const FramePackSections sections_;
};

}  // namespace kino::engine
