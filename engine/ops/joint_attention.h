// Attention of two streams, video and text, over the tokens of both, where each row of the batch
// has its own number of text tokens. Padding does not exist here: masked text is left out, as
// diffusers' MochiAttnProcessor2_0 does it (attention_processor.py, 0.42.1).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "engine/ops/norm_modulate.h"

namespace kino::engine {

// How the tokens of a batch lie one behind the other. Text alone is packed, [1, text_tokens, D]:
// the rows' texts in order. Keys and values of both streams are joined, [1, tokens, D]: for each
// row its video and then its text. A value.
class JointLayout {
 public:
  // video: tokens of each row; text: of each row, may be 0.
  JointLayout(int64_t video, std::vector<int64_t> text);

  int64_t rows() const { return static_cast<int64_t>(text_.size()); }
  int64_t video_tokens() const { return video_; }  // of a row
  int64_t text_tokens() const { return text_begin_.back(); }
  int64_t tokens() const { return rows() * video_ + text_tokens(); }
  // The spans of packed text: row i of the batch uses row i of a table.
  TokenSpans TextSpans() const;
  // The spans of a row's video, which uses row 0 of a table. Its first `apart` tokens use row 1.
  TokenSpans VideoSpans(int64_t apart = 0) const;
  // The spans of joined tokens: row i of the batch uses row i of a table. Where `apart` is not 0
  // the table has two rows for each: 2 * i, and 2 * i + 1 for the row's first `apart` tokens.
  TokenSpans JoinedSpans(int64_t apart = 0) const;
  // Both streams as one. video: [B, video, D]; text: packed, or undefined where there is none.
  at::Tensor Join(const at::Tensor& video, const at::Tensor& text) const;

  // Views of a joined tensor: a row, [1, video + text, D], and its parts.
  at::Tensor Row(const at::Tensor& joined, int64_t row) const;
  at::Tensor Video(const at::Tensor& joined, int64_t row) const;
  at::Tensor Text(const at::Tensor& joined, int64_t row) const;
  // The view of a row of packed text, [1, text, D].
  at::Tensor PackedText(const at::Tensor& packed, int64_t row) const;

 private:
  int64_t video_;
  std::vector<int64_t> text_;
  std::vector<int64_t> text_begin_;  // of each row in packed text, and the end
};

struct JointAttended {
  at::Tensor video;  // [B, video, D]
  at::Tensor text;   // packed
};

// video_q: [B, video, D]; text_q: packed; k, v: joined; D = heads * K. With no text tokens, or
// where `wants_text` is false (a last block), text is left undefined.
JointAttended JointAttention(const JointLayout& layout, const at::Tensor& video_q,
                             const at::Tensor& text_q, const at::Tensor& k, const at::Tensor& v,
                             int64_t heads, bool wants_text);

}  // namespace kino::engine
