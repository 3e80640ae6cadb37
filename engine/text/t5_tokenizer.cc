#include "engine/text/t5_tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <map>
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

absl::Status InFile(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("'", path, "': ", status.message()));
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

T5Tokenizer::T5Tokenizer(Unigram unigram, std::optional<Charsmap> charsmap,
                         AddedTokenMatcher raw_tokens, AddedTokenMatcher normalized_tokens)
    : unigram_(std::move(unigram)),
      charsmap_(std::move(charsmap)),
      raw_tokens_(std::move(raw_tokens)),
      normalized_tokens_(std::move(normalized_tokens)) {}

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
  KINO_ASSIGN_OR_RETURN(const T5TokenizerConfig config,
                        ReadT5TokenizerConfig(folder, vocabulary.tokens));

  std::optional<Charsmap> charsmap;
  if (vocabulary.charsmap) {
    auto parsed = Charsmap::Parse(*vocabulary.charsmap);
    if (!parsed.ok()) return InFile(vocabulary.path, parsed.status());
    charsmap = *std::move(parsed);
  }
  auto unigram = Unigram::Create(vocabulary.pieces, kUnkId);
  if (!unigram.ok()) return InFile(vocabulary.path, unigram.status());

  // A token that the vocabulary lacks gets the next free id. Of a text that comes twice the last
  // flags count.
  std::map<std::string, int32_t> ids;
  std::map<int32_t, AddedToken> tokens;
  int32_t next_id = unigram->size();
  for (const AddedToken& token : config.added_tokens) {
    if (token.content.empty()) continue;
    const auto [it, is_new] = ids.try_emplace(token.content, 0);
    if (is_new) {
      const auto known = unigram->Find(token.content);
      it->second = known ? *known : next_id++;
    }
    tokens[it->second] = token;
  }
  std::vector<AddedTokenMatcher::Entry> raw;
  std::vector<AddedTokenMatcher::Entry> normalized;
  for (const auto& [id, token] : tokens) {
    const bool is_changed = token.is_normalized() && charsmap;
    auto& list = token.is_normalized() ? normalized : raw;
    list.push_back({is_changed ? charsmap->Normalize(token.content) : token.content, id, token});
  }
  const AddedTokenMatcher::Options options{.leaves_special_tokens = config.split_special_tokens};
  auto raw_tokens = AddedTokenMatcher::Create(std::move(raw), options);
  if (!raw_tokens.ok()) return InFile(folder, raw_tokens.status());
  auto normalized_tokens = AddedTokenMatcher::Create(std::move(normalized), options);
  if (!normalized_tokens.ok()) return InFile(folder, normalized_tokens.status());

  // Named tokens are always added, so both texts have ids.
  const auto pad = ids.find(config.pad_token);
  const auto eos = ids.find(config.eos_token);
  if (pad == ids.end() || eos == ids.end()) {
    return InFile(folder, absl::InvalidArgumentError("pad_token or eos_token is empty"));
  }
  auto tokenizer = std::unique_ptr<T5Tokenizer>(
      new T5Tokenizer(*std::move(unigram), std::move(charsmap), *std::move(raw_tokens),
                      *std::move(normalized_tokens)));
  tokenizer->pad_id_ = pad->second;
  tokenizer->eos_id_ = eos->second;
  tokenizer->vocab_size_ = next_id;
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
  for (const AddedTokenMatcher::Segment& part : raw_tokens_.Split(prompt)) {
    if (part.id) {
      ids.push_back(*part.id);
      continue;
    }
    const std::string text = charsmap_ ? charsmap_->Normalize(part.text) : std::string(part.text);
    for (const AddedTokenMatcher::Segment& segment : normalized_tokens_.Split(text)) {
      if (segment.id) {
        ids.push_back(*segment.id);
      } else {
        EncodeText(segment.text, &ids);
      }
    }
  }
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
