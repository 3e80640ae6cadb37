#include "engine/text/t5_tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/text/sentencepiece_model.h"
#include "engine/text/tokenizer_config.h"
#include "engine/text/tokenizer_json.h"
#include "engine/text/unicode.h"

namespace kino::engine {
namespace {

constexpr std::string_view kWordStart = "\u2581";  // ▁
// T5Tokenizer's, whatever the file says.
constexpr int32_t kUnkId = 2;
constexpr int kMaxLength = 1 << 20;
const TokenizerClass kT5Class = {
    .named_tokens = {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}},
    .has_sentinels = true};

absl::Status InFile(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("'", path, "': ", status.message()));
}

std::string Normalized(const std::optional<Charsmap>& charsmap, std::string_view text) {
  return charsmap ? charsmap->Normalize(text) : std::string(text);
}

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

}  // namespace

// What tokenizer.json and spiece.model both come down to.
struct T5Tokenizer::Vocabulary {
  std::string path;
  std::vector<UnigramPiece> pieces = {};
  std::optional<std::string> charsmap = {};
  VocabularyTokens tokens = {};

  static absl::StatusOr<Vocabulary> FromTokenizerJson(const std::string& path) {
    KINO_ASSIGN_OR_RETURN(UnigramTokenizerJson file, ReadUnigramTokenizerJson(path));
    Vocabulary out{.path = path, .pieces = std::move(file.vocab)};
    out.charsmap = std::move(file.precompiled_charsmap);
    out.tokens.added_tokens = std::move(file.added_tokens);
    return out;
  }

  static absl::StatusOr<Vocabulary> FromSentencePiece(const std::string& path, int extra_ids) {
    KINO_ASSIGN_OR_RETURN(SentencePieceModel model, ReadSentencePieceModel(path));
    if (model.model_type != SentencePieceModel::ModelType::kUnigram) {
      return absl::InvalidArgumentError(absl::StrCat("'", path, "': model_type is ",
                                                     static_cast<int>(model.model_type),
                                                     ", expected 1 (unigram)"));
    }
    Vocabulary out{.path = path};
    out.tokens.additional_special_tokens.emplace();
    for (SentencePieceModel::Piece& piece : model.pieces) {
      using enum SentencePieceModel::PieceType;
      if (piece.type == kControl || piece.type == kUserDefined) {
        out.tokens.additional_special_tokens->push_back(
            {.content = piece.text, .special = piece.type == kControl, .normalized = false});
      }
      out.pieces.push_back({std::move(piece.text), piece.score});
    }
    for (int i = extra_ids - 1; i >= 0; --i) out.pieces.push_back({SentinelToken(i), 0.0});
    if (!model.precompiled_charsmap.empty()) out.charsmap = std::move(model.precompiled_charsmap);
    return out;
  }
};

T5Tokenizer::T5Tokenizer(Unigram unigram, std::optional<Charsmap> charsmap, AddedVocabulary added)
    : unigram_(std::move(unigram)), charsmap_(std::move(charsmap)), added_(std::move(added)) {}

absl::StatusOr<std::unique_ptr<T5Tokenizer>> T5Tokenizer::Load(const std::string& folder) {
  const std::string json_path = absl::StrCat(folder, "/tokenizer.json");
  const std::string model_path = absl::StrCat(folder, "/spiece.model");
  Vocabulary vocabulary;
  if (Exists(json_path)) {
    KINO_ASSIGN_OR_RETURN(vocabulary, Vocabulary::FromTokenizerJson(json_path));
  } else if (Exists(model_path)) {
    KINO_ASSIGN_OR_RETURN(const int extra_ids, ReadExtraIds(folder));
    KINO_ASSIGN_OR_RETURN(vocabulary, Vocabulary::FromSentencePiece(model_path, extra_ids));
  } else {
    return absl::NotFoundError(
        absl::StrCat("'", folder, "': holds neither tokenizer.json nor spiece.model"));
  }
  KINO_ASSIGN_OR_RETURN(const TokenizerConfig config,
                        ReadTokenizerConfig(folder, vocabulary.tokens, kT5Class));

  std::optional<Charsmap> charsmap;
  if (vocabulary.charsmap) {
    auto parsed = Charsmap::Parse(*vocabulary.charsmap);
    if (!parsed.ok()) return InFile(vocabulary.path, parsed.status());
    charsmap = *std::move(parsed);
  }
  auto unigram = Unigram::Create(vocabulary.pieces, kUnkId);
  if (!unigram.ok()) return InFile(vocabulary.path, unigram.status());

  const auto find = [&](std::string_view piece) { return unigram->Find(piece); };
  const auto normalize = [&](std::string_view text) { return Normalized(charsmap, text); };
  auto added = AddedVocabulary::Create(
      config.added_tokens,
      {.find = find, .size = unigram->size(), .id_bound = unigram->size(), .normalize = normalize},
      {.leaves_special_tokens = config.split_special_tokens});
  if (!added.ok()) return InFile(folder, added.status());
  // Named tokens are always added, so both texts have ids.
  const std::optional<int32_t> pad = added->Find(config.named_tokens.at("pad_token"));
  const std::optional<int32_t> eos = added->Find(config.named_tokens.at("eos_token"));
  if (!pad || !eos) {
    return InFile(folder, absl::InvalidArgumentError("pad_token or eos_token is empty"));
  }
  auto tokenizer = std::unique_ptr<T5Tokenizer>(
      new T5Tokenizer(*std::move(unigram), std::move(charsmap), *std::move(added)));
  tokenizer->pad_id_ = *pad;
  tokenizer->eos_id_ = *eos;
  return tokenizer;
}

absl::StatusOr<Tokens> T5Tokenizer::Encode(std::string_view prompt, int max_length) const {
  if (max_length < 1 || max_length > kMaxLength) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_length is ", max_length, ", expected 1 to ", kMaxLength));
  }
  Tokens tokens;
  KINO_ASSIGN_OR_RETURN(tokens.ids, EncodeWhole(prompt));
  const size_t length = static_cast<size_t>(max_length);
  const size_t used = std::min(tokens.ids.size(), length);
  tokens.ids.resize(length, pad_id_);
  tokens.ids[used - 1] = eos_id_;
  tokens.attention_mask.assign(length, 0);
  std::fill_n(tokens.attention_mask.begin(), used, 1);
  return tokens;
}

absl::StatusOr<std::vector<int64_t>> T5Tokenizer::EncodeWhole(std::string_view prompt) const {
  const size_t error = Utf8ErrorOffset(prompt);
  if (error != prompt.size()) {
    return absl::InvalidArgumentError(absl::StrCat("prompt is not UTF-8 at its byte ", error));
  }
  std::vector<int64_t> ids;
  KINO_RETURN_IF_ERROR(added_.Walk(
      prompt, [this](std::string_view text) { return Normalized(charsmap_, text); },
      [&ids](int32_t id) { ids.push_back(id); },
      [&](std::string_view text) {
        EncodeText(text, &ids);
        return absl::OkStatus();
      }));
  ids.push_back(eos_id_);
  return ids;
}

void T5Tokenizer::EncodeText(std::string_view text, std::vector<int64_t>* ids) const {
  size_t pos = 0;
  while (pos < text.size()) {
    size_t next = pos;
    if (IsWhiteSpace(DecodeUtf8(text, &next))) {
      pos = next;
      continue;
    }
    size_t end = next;
    while (end < text.size()) {
      next = end;
      if (IsWhiteSpace(DecodeUtf8(text, &next))) break;
      end = next;
    }
    const std::string_view bare = text.substr(pos, end - pos);
    pos = end;
    std::string word;
    if (!bare.starts_with(kWordStart)) word = kWordStart;
    word += bare;
    for (size_t begin = 0; begin < word.size();) {
      const size_t cut = std::min(word.find(kWordStart, begin + kWordStart.size()), word.size());
      unigram_.Encode(std::string_view(word).substr(begin, cut - begin), ids);
      begin = cut;
    }
  }
}

}  // namespace kino::engine
