// What a transformer's blocks of two streams, video and text, do between their norms and gates:
// each stream's queries, keys and values, RMS norms of each head, rotary positions of the video,
// and attention over the tokens of both (diffusers 0.42.1 MochiAttnProcessor2_0,
// HunyuanVideoAttnProcessor2_0).
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/ops/joint_attention.h"
#include "engine/ops/norm_rotary.h"
#include "engine/weights/weight_set.h"

namespace kino::engine {

// Of one stream. Immutable after construction.
struct JointProjections {
  // What diffusers' Attention calls them: to_q and norm_q, or of the stream that is added to a
  // block's own, add_q_proj and norm_added_q.
  enum class Names { kOwn, kAdded };
  struct Options {
    int64_t in = 0;
    int64_t width = 0;  // of all heads
    int64_t head = 0;
    bool bias = true;
  };
  JointProjections() = default;
  // `attention` holds them.
  JointProjections(const WeightScope& attention, Names names, const Options& options);

  LinearWeight q, k, v;
  WeightRef norm_q, norm_k;
};

struct JointAttentionOptions {
  int64_t heads = 1;
  double norm_eps = 1e-6;
  bool wants_text = true;  // of a last block, no
};

// JointAttention of both streams. video: [B, S, in]; text: packed, undefined where there is none;
// both normed, and let go of as soon as they are used. rotary: of the video, [S, K / 2]. One
// layer's weights are used at a time.
JointAttended AttendJointly(const JointLayout& layout, const JointProjections& of_video,
                            at::Tensor video, const JointProjections& of_text, at::Tensor text,
                            const RotaryTable& rotary, const JointAttentionOptions& options);

// The same of a block that takes both streams as one. normed: joined, [1, tokens, in]; rotary: of
// all of them -> [1, tokens, D].
at::Tensor AttendJoined(const JointLayout& layout, const JointProjections& projections,
                        const at::Tensor& normed, const RotaryTable& rotary,
                        const JointAttentionOptions& options);

}  // namespace kino::engine
