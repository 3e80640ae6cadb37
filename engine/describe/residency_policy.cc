#include "engine/describe/residency_policy.h"

#include <charconv>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace kino::engine {

absl::StatusOr<ResidencyPolicy> ResidencyPolicy::Parse(const std::string& text) {
  if (text.empty() || text == "none") return ResidencyPolicy{};
  ResidencyPolicy policy;
  constexpr std::string_view kBlock = "block:";
  if (text.starts_with(kBlock)) {
    const char* begin = text.data() + kBlock.size();
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(begin, end, policy.blocks_per_group);
    if (error == std::errc() && stop == end && policy.blocks_per_group >= 1) return policy;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("offload '", text, "', expected 'none' or 'block:N' with N from 1"));
}

std::string ResidencyPolicy::ToString() const {
  return blocks_per_group == 0 ? "none" : absl::StrCat("block:", blocks_per_group);
}

}  // namespace kino::engine
