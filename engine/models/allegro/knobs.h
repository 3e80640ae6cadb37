// Allegro's own knobs, named as diffusers 0.42.1 pipelines/allegro names its arguments. Values; no
// torch.
#pragma once

#include <optional>

#include "engine/describe/request.h"

namespace kino::engine {

struct AllegroKnobs {
  std::optional<int> max_sequence_length;
  std::optional<int> clean_caption;
};

inline constexpr KnobField<AllegroKnobs> kAllegroKnobs[] = {
    Knob<&AllegroKnobs::max_sequence_length>("max_sequence_length", 1, 512, 512, "Text tokens."),
    Knob<&AllegroKnobs::clean_caption>(
        "clean_caption", 0, 1, 1,
        "1: links, tags, entities and the like are taken out of the prompts; 0: they are put in "
        "lower case only."),
};

}  // namespace kino::engine
