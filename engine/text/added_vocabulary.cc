#include "engine/text/added_vocabulary.h"

#include <algorithm>
#include <utility>

#include "engine/core/status.h"

namespace kino::engine {

absl::StatusOr<AddedVocabulary> AddedVocabulary::Create(const std::vector<AddedToken>& tokens,
                                                        const Model& model,
                                                        AddedTokenMatcher::Options options) {
  std::map<std::string, int32_t, std::less<>> ids;
  std::map<int32_t, AddedToken> by_id;
  // Behind the model's tokens by their number, and behind every added one, whatever its id is.
  int32_t next_id = model.size;
  for (const AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    const auto [it, is_new] = ids.try_emplace(token.content, 0);
    if (is_new) {
      it->second = model.find(token.content).value_or(next_id);
      next_id = std::max(next_id, it->second + 1);
    }
    by_id[it->second] = token;
  }
  std::vector<AddedTokenMatcher::Entry> raw;
  std::vector<AddedTokenMatcher::Entry> normalized;
  for (const auto& [id, token] : by_id) {
    if (token.is_normalized()) {
      KINO_ASSIGN_OR_RETURN(std::string pattern, model.normalize(token.content));
      normalized.push_back({std::move(pattern), id, token});
    } else {
      raw.push_back({token.content, id, token});
    }
  }
  KINO_ASSIGN_OR_RETURN(AddedTokenMatcher raw_tokens,
                        AddedTokenMatcher::Create(std::move(raw), options));
  KINO_ASSIGN_OR_RETURN(AddedTokenMatcher normalized_tokens,
                        AddedTokenMatcher::Create(std::move(normalized), options));
  AddedVocabulary made(std::move(raw_tokens), std::move(normalized_tokens));
  made.ids_ = std::move(ids);
  made.id_bound_ = std::max(next_id, model.id_bound);
  return made;
}

std::optional<int32_t> AddedVocabulary::Find(std::string_view content) const {
  const auto found = ids_.find(content);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

absl::Status AddedVocabulary::Walk(
    std::string_view prompt, Normalize normalize, absl::FunctionRef<void(int32_t)> on_token,
    absl::FunctionRef<absl::Status(std::string_view)> on_text) const {
  for (const AddedTokenMatcher::Segment& part : raw_.Split(prompt)) {
    if (part.id) {
      on_token(*part.id);
      continue;
    }
    KINO_ASSIGN_OR_RETURN(const std::string text, normalize(part.text));
    for (const AddedTokenMatcher::Segment& segment : normalized_.Split(text)) {
      if (segment.id) {
        on_token(*segment.id);
      } else {
        KINO_RETURN_IF_ERROR(on_text(segment.text));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace kino::engine
