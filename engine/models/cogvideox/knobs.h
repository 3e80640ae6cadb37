// CogVideoX's own knobs, named as diffusers 0.42.1 pipelines/cogvideo names its arguments. Values;
// no torch.
#pragma once

#include <optional>

#include "engine/describe/request.h"

namespace kino::engine {

struct CogVideoXKnobs {
  std::optional<int> max_sequence_length, use_dynamic_cfg, scheduler;
};

// Values of `scheduler`.
enum : int { kOwnScheduler = 0, kDdimScheduler = 1, kDpmScheduler = 2 };

inline constexpr KnobField<CogVideoXKnobs> kCogVideoXKnobs[] = {
    Knob<&CogVideoXKnobs::max_sequence_length>("max_sequence_length", 1, 512, 226, "Text tokens."),
    Knob<&CogVideoXKnobs::use_dynamic_cfg>("use_dynamic_cfg", 0, 1, 0,
                                           "1: guidance that grows from 1 along the steps."),
    Knob<&CogVideoXKnobs::scheduler>(
        "scheduler", kOwnScheduler, kDpmScheduler, kOwnScheduler,
        "0: the one that the checkpoint names. 1: DDIM. 2: DPM-Solver++."),
};

}  // namespace kino::engine
