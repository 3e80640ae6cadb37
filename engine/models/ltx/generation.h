// Which published LTX-Video a checkpoint is. No torch. Pure but for reading the VAE's config.
#pragma once

#include <string>

#include "engine/describe/families.h"

namespace kino::engine {

// By the transformer's size and the VAE's kind. 0.9.5 and 0.9.6 have the same configs, and so have
// 0.9.7 and 0.9.8, distilled or not. Empty: none of them, or no config that can be read.
std::string LtxGeneration(const ModelSource& source);

}  // namespace kino::engine
