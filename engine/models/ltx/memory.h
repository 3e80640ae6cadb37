// What an LTX-Video run holds and computes, phase by phase, from shapes alone: for the planner. The
// formulas count the tensors that live at a time in run.cc, transformer.cc, t5_encoder.cc and the
// operators they call; tests/parity/plan_accuracy_test.py holds them to what is measured. Pure
// functions, no torch.
#pragma once

#include <string_view>
#include <vector>

#include "engine/describe/memory_need.h"
#include "engine/models/ltx/transformer_config.h"
#include "engine/models/ltx/vae_config.h"
#include "engine/text/t5_config.h"

namespace kino::engine {

struct LtxConfigs {
  T5EncoderConfig text_encoder;
  LtxTransformerConfig transformer;
  LtxVaeConfig vae;
};

// The groups that the layers make of a component's weights.
WeightPlace LtxWeightPlace(const LtxConfigs& configs, std::string_view component,
                           const WeightTensor& weight);

// Of an effective request.
std::vector<PhaseNeed> LtxPhases(const LtxConfigs& configs, const Request& request,
                                 const PhaseOptions& options);

}  // namespace kino::engine
