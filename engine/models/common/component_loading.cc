#include "engine/models/common/component_loading.h"

namespace kino::engine {

absl::Status CheckFit(const PipelineOptions& options, std::string_view what, int64_t value,
                      std::string_view other_what, int64_t other_value) {
  if (value == other_value) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", options.folder, "': ", std::string(what),
                                                 " is ", value, ", ", std::string(other_what), " ",
                                                 other_value, "; expected the same"));
}

}  // namespace kino::engine
