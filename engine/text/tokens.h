// What a tokenizer makes of one prompt, whichever tokenizer it is. Values only.
#pragma once

#include <cstdint>
#include <vector>

namespace kino::engine {

// One prompt, L = max_length entries each.
struct Tokens {
  std::vector<int64_t> ids;             // padded on the right with the pad id
  std::vector<int64_t> attention_mask;  // 1 for a token, 0 for padding
};

}  // namespace kino::engine
