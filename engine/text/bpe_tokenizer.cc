#include "engine/text/bpe_tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/text/added_vocabulary.h"
#include "engine/text/bpe.h"
#include "engine/text/bpe_files.h"
#include "engine/text/normal_form.h"
#include "engine/text/tokenizer_config.h"
#include "engine/text/tokenizer_tables.h"
#include "engine/text/unicode.h"

namespace kino::engine {
namespace {

constexpr int kMaxLength = 1 << 20;

// CLIPTokenizer's own, whatever the files say.
constexpr char kClipPattern[] =
    R"(<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
constexpr char kClipSuffix[] = "</w>";
constexpr char kSpaces[] = R"(\s+)";

const TokenizerClass kFileClass = {.keeps_file_tokens = true};
const TokenizerClass kClipClass = {.named_tokens = {{"bos_token", "<|startoftext|>"},
                                                    {"eos_token", "<|endoftext|>"},
                                                    {"unk_token", "<|endoftext|>"},
                                                    {"pad_token", "<|endoftext|>"}}};

absl::Status InFile(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("'", path, "': ", status.message()));
}

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

using Texts = std::vector<std::string>;

// One step of a normalizer or a splitter takes a text to the next one, or texts to the next ones.
absl::StatusOr<std::string> Apply(NfcStep, std::string_view text) {
  return NormalizeNfc(
      text, {.combining = {kTokenizerCombiningBoundaries, kTokenizerCombiningBoundaryCount},
             .unknown = {kTokenizerUnknownDecompositions, kTokenizerUnknownDecompositionCount}});
}

absl::StatusOr<std::string> Apply(LowercaseStep, std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    AppendLower(DecodeUtf8(text, &at), {kTokenizerLowerRuns, kTokenizerLowerRunCount}, out);
  }
  return out;
}

absl::StatusOr<std::string> Apply(const ReplaceStep& step, std::string_view text) {
  KINO_ASSIGN_OR_RETURN(const std::vector<SplitPattern::Piece> pieces, step.pattern.Split(text));
  std::string out;
  for (const SplitPattern::Piece& piece : pieces) {
    out += piece.is_match ? std::string_view(step.content) : piece.text;
  }
  return out;
}

absl::Status Apply(const SplitStep& step, const std::string& text, Texts& out) {
  KINO_ASSIGN_OR_RETURN(const std::vector<SplitPattern::Piece> pieces, step.pattern.Split(text));
  for (const SplitPattern::Piece& piece : pieces) {
    if (piece.is_match ? !step.drops_matches : !step.drops_rest) out.emplace_back(piece.text);
  }
  return absl::OkStatus();
}

absl::Status Apply(PrefixSpaceStep, const std::string& text, Texts& out) {
  out.push_back(text.starts_with(' ') ? text : " " + text);
  return absl::OkStatus();
}

absl::StatusOr<std::string> Normalize(const std::vector<NormalizerStep>& normalizer,
                                      std::string_view text) {
  std::string out(text);
  for (const NormalizerStep& step : normalizer) {
    KINO_ASSIGN_OR_RETURN(out,
                          std::visit([&](const auto& each) { return Apply(each, out); }, step));
  }
  return out;
}

absl::StatusOr<std::vector<NormalizerStep>> ClipNormalizer() {
  KINO_ASSIGN_OR_RETURN(SplitPattern spaces, SplitPattern::Create(kSpaces));
  std::vector<NormalizerStep> steps;
  steps.emplace_back(NfcStep{});
  steps.emplace_back(ReplaceStep{std::move(spaces), " "});
  steps.emplace_back(LowercaseStep{});
  return steps;
}

// Words of CLIP's pattern, each split by GPT-2's once more (ByteLevel's use_regex is true there).
absl::StatusOr<std::vector<SplitterStep>> ClipSplitter() {
  KINO_ASSIGN_OR_RETURN(SplitPattern words, SplitPattern::Create(kClipPattern));
  KINO_ASSIGN_OR_RETURN(SplitPattern gpt2, SplitPattern::Create(kGpt2Pattern));
  std::vector<SplitterStep> steps;
  steps.emplace_back(SplitStep{.pattern = std::move(words), .drops_rest = true});
  steps.emplace_back(SplitStep{.pattern = std::move(gpt2)});
  return steps;
}

}  // namespace

// Immutable once it is in a tokenizer.
struct BpeTokenizer::Parts {
  Bpe bpe;
  AddedVocabulary added;
  std::vector<NormalizerStep> normalizer;
  std::vector<SplitterStep> splitter = {};
  Surroundings surroundings = {};

  // Without splitter and surroundings. Errors name the folder.
  static absl::StatusOr<std::unique_ptr<Parts>> Make(const std::string& folder, BpeModel model,
                                                     const TokenizerConfig& config,
                                                     std::vector<NormalizerStep> normalizer) {
    auto bpe = Bpe::Create(std::move(model));
    if (!bpe.ok()) return InFile(folder, bpe.status());
    auto added = AddedVocabulary::Create(
        config.added_tokens,
        {.find = [&](std::string_view token) { return bpe->Find(token); },
         .size = bpe->size(),
         .id_bound = bpe->id_bound(),
         .normalize = [&](std::string_view text) { return Normalize(normalizer, text); }},
        {.leaves_special_tokens = config.split_special_tokens});
    if (!added.ok()) return InFile(folder, added.status());
    return std::make_unique<Parts>(
        Parts{*std::move(bpe), *std::move(added), std::move(normalizer)});
  }

  // Appends the ids of normalised text without added tokens.
  absl::Status EncodeText(std::string_view text, std::vector<int64_t>* ids) const {
    Texts pieces = {std::string(text)};
    for (const SplitterStep& step : splitter) {
      Texts next;
      for (const std::string& piece : pieces) {
        KINO_RETURN_IF_ERROR(
            std::visit([&](const auto& each) { return Apply(each, piece, next); }, step));
      }
      pieces = std::move(next);
    }
    for (const std::string& piece : pieces) bpe.Encode(piece, ids);
    return absl::OkStatus();
  }

  // The prompt's ids without what the post-processor adds.
  absl::StatusOr<std::vector<int64_t>> Encode(std::string_view prompt) const {
    const size_t error = Utf8ErrorOffset(prompt);
    if (error != prompt.size()) {
      return absl::InvalidArgumentError(absl::StrCat("prompt is not UTF-8 at its byte ", error));
    }
    std::vector<int64_t> ids;
    KINO_RETURN_IF_ERROR(added.Walk(
        prompt, [this](std::string_view text) { return Normalize(normalizer, text); },
        [&ids](int32_t id) { ids.push_back(id); },
        [&](std::string_view text) { return EncodeText(text, &ids); }));
    return ids;
  }

  std::vector<int64_t> Surrounded(const std::vector<int64_t>& inner) const {
    std::vector<int64_t> out = surroundings.before;
    out.insert(out.end(), inner.begin(), inner.end());
    out.insert(out.end(), surroundings.after.begin(), surroundings.after.end());
    return out;
  }
};

BpeTokenizer::BpeTokenizer(std::unique_ptr<const Parts> parts, int64_t pad_id)
    : parts_(std::move(parts)), pad_id_(pad_id) {}

BpeTokenizer::~BpeTokenizer() = default;

absl::StatusOr<std::unique_ptr<BpeTokenizer>> BpeTokenizer::Make(const std::string& folder,
                                                                 std::unique_ptr<const Parts> parts,
                                                                 const TokenizerConfig& config) {
  const auto pad = config.named_tokens.find("pad_token");
  const std::optional<int32_t> pad_id =
      pad == config.named_tokens.end() ? std::nullopt : parts->added.Find(pad->second);
  if (!pad_id) {
    return InFile(folder, absl::InvalidArgumentError(
                              "no pad_token; name one in tokenizer_config.json, where transformers "
                              "looks for it too"));
  }
  for (const std::vector<int64_t>* ids :
       {&parts->surroundings.before, &parts->surroundings.after}) {
    for (const int64_t id : *ids) {
      if (id < parts->added.id_bound()) continue;
      return InFile(
          folder, absl::InvalidArgumentError(absl::StrCat(
                      "post_processor adds the id ", id, ", expected one of the vocabulary, below ",
                      parts->added.id_bound())));
    }
  }
  return std::unique_ptr<BpeTokenizer>(new BpeTokenizer(std::move(parts), *pad_id));
}

absl::StatusOr<std::unique_ptr<BpeTokenizer>> BpeTokenizer::LoadByteLevel(
    const std::string& folder) {
  const std::string path = absl::StrCat(folder, "/tokenizer.json");
  KINO_ASSIGN_OR_RETURN(BpeTokenizerJson file, ReadBpeTokenizerJson(path));
  KINO_ASSIGN_OR_RETURN(
      const TokenizerConfig config,
      ReadTokenizerConfig(folder, {.added_tokens = std::move(file.added_tokens)}, kFileClass));
  KINO_ASSIGN_OR_RETURN(
      std::unique_ptr<Parts> parts,
      Parts::Make(folder, std::move(file.model), config, std::move(file.normalizer)));
  parts->splitter = std::move(file.splitter);
  parts->surroundings = std::move(file.surroundings);
  return Make(folder, std::move(parts), config);
}

absl::StatusOr<std::unique_ptr<BpeTokenizer>> BpeTokenizer::LoadClip(const std::string& folder) {
  const std::string json_path = absl::StrCat(folder, "/tokenizer.json");
  const std::string vocab_path = absl::StrCat(folder, "/vocab.json");
  BpeTokenizerJson file;
  if (Exists(json_path)) {
    KINO_ASSIGN_OR_RETURN(file, ReadBpeVocabularyJson(json_path));
  } else if (Exists(vocab_path)) {
    KINO_ASSIGN_OR_RETURN(file.model,
                          ReadBpeFiles(vocab_path, absl::StrCat(folder, "/merges.txt")));
  } else {
    return absl::NotFoundError(
        absl::StrCat("'", folder, "': holds neither tokenizer.json nor vocab.json and merges.txt"));
  }
  KINO_ASSIGN_OR_RETURN(
      const TokenizerConfig config,
      ReadTokenizerConfig(folder, {.added_tokens = std::move(file.added_tokens)}, kClipClass));
  file.model.end_of_word_suffix = kClipSuffix;
  file.model.unk_token = config.named_tokens.at("unk_token");
  KINO_ASSIGN_OR_RETURN(std::vector<NormalizerStep> normalizer, ClipNormalizer());
  KINO_ASSIGN_OR_RETURN(std::unique_ptr<Parts> parts,
                        Parts::Make(folder, std::move(file.model), config, std::move(normalizer)));
  KINO_ASSIGN_OR_RETURN(parts->splitter, ClipSplitter());
  const std::optional<int32_t> bos = parts->added.Find(config.named_tokens.at("bos_token"));
  const std::optional<int32_t> eos = parts->added.Find(config.named_tokens.at("eos_token"));
  if (!bos || !eos) {
    return InFile(folder, absl::InvalidArgumentError("bos_token or eos_token is empty"));
  }
  parts->surroundings = {.before = {*bos}, .after = {*eos}};
  return Make(folder, std::move(parts), config);
}

absl::StatusOr<Tokens> BpeTokenizer::Encode(std::string_view prompt, int max_length) const {
  const auto& [before, after] = parts_->surroundings;
  const size_t added = before.size() + after.size();
  const int shortest = std::max(static_cast<int>(added), 1);
  if (max_length < shortest || max_length > kMaxLength) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_length is ", max_length, ", expected ", shortest, " to ", kMaxLength));
  }
  const size_t length = static_cast<size_t>(max_length);
  KINO_ASSIGN_OR_RETURN(std::vector<int64_t> inner, parts_->Encode(prompt));
  inner.resize(std::min(inner.size(), length - added));
  Tokens tokens;
  tokens.ids = parts_->Surrounded(inner);
  const size_t used = tokens.ids.size();
  tokens.ids.resize(length, pad_id_);
  tokens.attention_mask.assign(length, 0);
  std::fill_n(tokens.attention_mask.begin(), used, 1);
  return tokens;
}

absl::StatusOr<std::vector<int64_t>> BpeTokenizer::EncodeWhole(std::string_view prompt) const {
  KINO_ASSIGN_OR_RETURN(const std::vector<int64_t> inner, parts_->Encode(prompt));
  return parts_->Surrounded(inner);
}

std::optional<int64_t> BpeTokenizer::FindToken(std::string_view text) const {
  const std::optional<int32_t> added = parts_->added.Find(text);
  return added ? added : parts_->bpe.Find(text);
}

int64_t BpeTokenizer::vocab_size() const { return parts_->added.id_bound(); }

}  // namespace kino::engine
