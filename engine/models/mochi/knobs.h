// Mochi-1's own knobs, named as diffusers 0.42.1 pipelines/mochi names its arguments. Values; no
// torch.
#pragma once

#include <optional>

#include "engine/describe/request.h"

namespace kino::engine {

struct MochiKnobs {
  std::optional<int> max_sequence_length;
};

inline constexpr KnobField<MochiKnobs> kMochiKnobs[] = {
    Knob<&MochiKnobs::max_sequence_length>("max_sequence_length", 1, 512, 256, "Text tokens."),
};

}  // namespace kino::engine
