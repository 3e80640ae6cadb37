// A part of a video whose frames fade into those of the part before it (diffusers 0.42.1
// pipeline_hunyuan_video_framepack.py, _soft_append). One thread at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "engine/models/common/vae_tiles.h"

namespace kino::engine {

class JoinedDecode final : public DecodeStream {
 public:
  struct Part {
    int64_t frames = 0;   // that the decoder gives
    int64_t dropped = 0;  // of its first
    int64_t held = 0;     // of its last, that fade into the next part's first
  };
  // before: what the part before this one held back, [T, H, W, 3], T frames that fade into the
  // first of this one; undefined: there is none. *tail is set to the frames held once this one is
  // done; it may be null where none are held.
  JoinedDecode(std::unique_ptr<DecodeStream> decode, const Part& part, const at::Tensor& before,
               at::Tensor* tail);

  bool done() const override { return decode_->done(); }
  at::Tensor NextFrames(const RunContext& context) override;

 private:
  at::Tensor FadeIn(const at::Tensor& frames, int64_t first) const;

  const std::unique_ptr<DecodeStream> decode_;
  const Part part_;
  const at::Tensor before_;
  at::Tensor* const tail_;
  int64_t decoded_ = 0;
  std::vector<at::Tensor> held_;
};

}  // namespace kino::engine
