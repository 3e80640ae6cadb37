#include "engine/text/tokenizer_json.h"

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

using nlohmann::json;

// json[key], or a null when it is absent or json is not an object.
const json& At(const json& object, const char* key) {
  static const json null;
  if (!object.is_object()) return null;
  const auto it = object.find(key);
  return it == object.end() ? null : *it;
}

bool IsText(const json& value, const char* text) {
  return value.is_string() && value.get_ref<const std::string&>() == text;
}

absl::StatusOr<std::vector<UnigramPiece>> ReadVocab(const json& model, const std::string& where) {
  const json& type = At(model, "type");
  if (!IsText(type, "Unigram")) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": model.type is ",
                                                   type.dump(-1, ' ', true).substr(0, 60),
                                                   ", expected \"Unigram\""));
  }
  const json& rows = At(model, "vocab");
  if (!rows.is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": model.vocab is no list of [piece, score]"));
  }
  std::vector<UnigramPiece> vocab;
  vocab.reserve(rows.size());
  for (const json& row : rows) {
    if (!row.is_array() || row.size() != 2 || !row[0].is_string() || !row[1].is_number()) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": model.vocab[", vocab.size(), "] is not [piece, score]"));
    }
    vocab.push_back({row[0].get<std::string>(), row[1].get<double>()});
  }
  return vocab;
}

// The first charsmap of the normaliser, or of the sequence that it is.
absl::Status ReadCharsmap(const json& normalizer, const std::string& where,
                          std::optional<std::string>* out) {
  std::vector<const json*> steps;
  if (IsText(At(normalizer, "type"), "Sequence")) {
    for (const json& step : At(normalizer, "normalizers")) steps.push_back(&step);
  } else {
    steps.push_back(&normalizer);
  }
  for (const json* step : steps) {
    if (!IsText(At(*step, "type"), "Precompiled") || !step->contains("precompiled_charsmap"))
      continue;
    const json& encoded = At(*step, "precompiled_charsmap");
    std::string bytes;
    if (!encoded.is_string() ||
        !absl::Base64Unescape(encoded.get_ref<const std::string&>(), &bytes)) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": normalizer.precompiled_charsmap is not base64"));
    }
    *out = std::move(bytes);
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::pair<int64_t, AddedToken>>> ReadAddedTokens(
    const json& added_tokens, const std::string& where) {
  std::vector<std::pair<int64_t, AddedToken>> out;
  if (!added_tokens.is_null() && !added_tokens.is_array()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": added_tokens is no list"));
  }
  for (const json& row : added_tokens) {
    const std::string key = absl::StrCat(where, ": added_tokens[", out.size(), "]");
    const json& id = At(row, "id");
    if (!id.is_number_integer())
      return absl::InvalidArgumentError(absl::StrCat(key, ": 'id' is no integer"));
    KINO_ASSIGN_OR_RETURN(AddedToken token, ParseAddedToken(row, key));
    out.emplace_back(id.get<int64_t>(), std::move(token));
  }
  return out;
}

absl::StatusOr<UnigramTokenizerJson> ReadUnigramTokenizerJson(const std::string& path) {
  KINO_ASSIGN_OR_RETURN(const json file, ReadJsonFile(path));
  const std::string where = absl::StrCat("'", path, "'");
  UnigramTokenizerJson out;
  KINO_ASSIGN_OR_RETURN(out.vocab, ReadVocab(At(file, "model"), where));
  KINO_RETURN_IF_ERROR(ReadCharsmap(At(file, "normalizer"), where, &out.precompiled_charsmap));
  KINO_ASSIGN_OR_RETURN(out.added_tokens, ReadAddedTokens(At(file, "added_tokens"), where));
  return out;
}

}  // namespace kino::engine
