// The tokens that a tokenizer's files add to its model's vocabulary, with their ids, and the search
// for them in a prompt. Immutable after Create; thread-safe.
//
// Source: Hugging Face tokenizers 0.23, tokenizer/added_vocabulary.rs (add_tokens,
// extract_and_normalize).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/added_tokens.h"

namespace kino::engine {

class AddedVocabulary {
 public:
  using Normalize = absl::FunctionRef<absl::StatusOr<std::string>(std::string_view)>;

  // What the tokens are added to.
  struct Model {
    absl::FunctionRef<std::optional<int32_t>(std::string_view)> find;
    int32_t size = 0;      // how many tokens it has: the first free id
    int32_t id_bound = 0;  // all its ids are below
    Normalize normalize;
  };

  // Tokens in the order in which they get their ids: the model's own where it has the text, else
  // the next free one. Of a text that comes twice the last flags count; empty ones are left out.
  // INVALID_ARGUMENT: what AddedTokenMatcher refuses, and normalize's errors.
  static absl::StatusOr<AddedVocabulary> Create(const std::vector<AddedToken>& tokens,
                                                const Model& model,
                                                AddedTokenMatcher::Options options);

  std::optional<int32_t> Find(std::string_view content) const;

  // All ids, the model's too, are below this.
  int32_t id_bound() const { return id_bound_; }

  // Calls on_token for each added token in `prompt` and on_text for what stands between them,
  // normalised. The first error ends the walk and is returned. REQUIRES: prompt is well-formed
  // UTF-8.
  absl::Status Walk(std::string_view prompt, Normalize normalize,
                    absl::FunctionRef<void(int32_t)> on_token,
                    absl::FunctionRef<absl::Status(std::string_view)> on_text) const;

 private:
  AddedVocabulary(AddedTokenMatcher raw, AddedTokenMatcher normalized)
      : raw_(std::move(raw)), normalized_(std::move(normalized)) {}

  std::map<std::string, int32_t, std::less<>> ids_;
  AddedTokenMatcher raw_;         // looked for in the prompt as it came
  AddedTokenMatcher normalized_;  // looked for after normalisation
  int32_t id_bound_ = 0;
};

}  // namespace kino::engine
