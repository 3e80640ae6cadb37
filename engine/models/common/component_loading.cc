#include "engine/models/common/component_loading.h"

namespace kino::engine {

absl::StatusOr<std::shared_ptr<const T5Tokenizer>> LoadT5Tokenizer(const PipelineOptions& options) {
  absl::StatusOr<std::unique_ptr<T5Tokenizer>> tokenizer =
      T5Tokenizer::Load(options.folder + "/tokenizer");
  if (tokenizer.ok()) return *std::move(tokenizer);
  if (options.device.is_meta() && absl::IsNotFound(tokenizer.status())) return nullptr;
  return tokenizer.status();
}

absl::Status CheckFit(const PipelineOptions& options, std::string_view what, int64_t value,
                      std::string_view other_what, int64_t other_value) {
  if (value == other_value) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", options.folder, "': ", std::string(what),
                                                 " is ", value, ", ", std::string(other_what), " ",
                                                 other_value, "; expected the same"));
}

}  // namespace kino::engine
