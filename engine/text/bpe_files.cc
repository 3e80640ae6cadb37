#include "engine/text/bpe_files.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/text/tokenizer_json.h"
#include "engine/text/unicode.h"

namespace kino::engine {

const char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

using nlohmann::json;

// merges.txt of a vocabulary of a million tokens takes less.
constexpr uintmax_t kMostMergesBytes = 64u << 20;
// What a line that is no merge begins with.
constexpr std::string_view kVersion = "#version";

std::string Short(const json& value) {
  return value.dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 60);
}

// A JSON object and where it is: "'FILE': pre_tokenizer.pretokenizers[0]".
class Section {
 public:
  Section(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  // Null where the key is absent.
  const json& At(const char* key) const {
    static const json null;
    if (!object_.is_object()) return null;
    const auto it = object_.find(key);
    return it == object_.end() ? null : *it;
  }
  Section Child(const char* key) const { return {At(key), absl::StrCat(where_, ".", key)}; }
  std::vector<Section> List(const char* key) const {
    std::vector<Section> out;
    if (!At(key).is_array()) return out;
    for (const json& item : At(key)) {
      out.emplace_back(item, absl::StrCat(where_, ".", key, "[", out.size(), "]"));
    }
    return out;
  }
  bool is_null() const { return object_.is_null(); }
  const json& object() const { return object_; }
  const std::string& where() const { return where_; }

  absl::Status Error(const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(where_, ": ", what));
  }
  absl::Status Unsupported(const char* key, const std::string& expected) const {
    return absl::InvalidArgumentError(absl::StrCat(
        where_, ".", key, " is ", Short(At(key)), ", which is not supported; expected ", expected));
  }
  // The text of "type".
  absl::StatusOr<std::string> Type() const {
    if (!At("type").is_string()) return Error("no object with a 'type'");
    return At("type").get<std::string>();
  }
  absl::StatusOr<bool> Flag(const char* key, bool fallback) const {
    if (At(key).is_null()) return fallback;
    if (At(key).is_boolean()) return At(key).get<bool>();
    return Unsupported(key, "true or false");
  }

 private:
  const json& object_;
  std::string where_;
};

// Steps of a "Sequence" in turn, or the one step itself.
template <typename Read>
absl::Status ForEachStep(const Section& section, const char* list_key, const Read& read) {
  if (section.is_null()) return absl::OkStatus();
  KINO_ASSIGN_OR_RETURN(const std::string type, section.Type());
  if (type != "Sequence") return read(section, type);
  if (!section.At(list_key).is_array()) return section.Unsupported(list_key, "a list");
  for (const Section& step : section.List(list_key)) {
    KINO_ASSIGN_OR_RETURN(const std::string step_type, step.Type());
    KINO_RETURN_IF_ERROR(read(step, step_type));
  }
  return absl::OkStatus();
}

absl::StatusOr<SplitPattern> ReadPattern(const Section& step) {
  const Section pattern = step.Child("pattern");
  if (!pattern.At("Regex").is_string()) return step.Unsupported("pattern", R"({"Regex": ...})");
  auto made = SplitPattern::Create(pattern.At("Regex").get<std::string>());
  if (!made.ok()) return pattern.Error(std::string(made.status().message()));
  return made;
}

absl::Status ReadVocab(const json& vocab, const std::string& where, BpeModel& model) {
  if (!vocab.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(where, " is no object of token and id"));
  }
  model.vocab.reserve(vocab.size());
  for (const auto& [token, id] : vocab.items()) {
    const bool is_id = id.is_number_unsigned() && id.get<uint64_t>() < INT32_MAX;
    if (!is_id) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, "[", Short(token), "] is ", Short(id), ", expected an id"));
    }
    model.vocab[token] = static_cast<int32_t>(id.get<uint64_t>());
  }
  return absl::OkStatus();
}

using MergePair = std::pair<std::string, std::string>;

std::optional<MergePair> ParseMergeLine(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
    return std::nullopt;
  }
  return MergePair(line.substr(0, space), line.substr(space + 1));
}

std::optional<MergePair> ParseMerge(const json& merge) {
  if (merge.is_string()) return ParseMergeLine(merge.get_ref<const std::string&>());
  if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) {
    return std::nullopt;
  }
  return MergePair(merge[0].get<std::string>(), merge[1].get<std::string>());
}

bool IsVersionLine(const json& merge) {
  return merge.is_string() && merge.get_ref<const std::string&>().starts_with(kVersion);
}

absl::Status ReadMerges(const Section& section, BpeModel& model) {
  const json& merges = section.At("merges");
  if (!merges.is_array()) return section.Unsupported("merges", "a list");
  for (size_t i = 0; i < merges.size(); ++i) {
    if (IsVersionLine(merges[i])) continue;
    std::optional<MergePair> pair = ParseMerge(merges[i]);
    if (!pair) {
      return section.Error(absl::StrCat("merges[", i, "] is ", Short(merges[i]),
                                        R"(, expected "a b" or ["a", "b"])"));
    }
    model.merges.push_back(*std::move(pair));
  }
  return absl::OkStatus();
}

absl::Status ReadVocabulary(const Section& section, BpeModel& model) {
  KINO_ASSIGN_OR_RETURN(const std::string type, section.Type());
  if (type != "BPE") return section.Unsupported("type", "\"BPE\"");
  KINO_RETURN_IF_ERROR(ReadVocab(section.At("vocab"), section.where() + ".vocab", model));
  return ReadMerges(section, model);
}

absl::Status ReadModelOptions(const Section& section, BpeModel& model) {
  const json& dropout = section.At("dropout");
  if (!dropout.is_null() && !(dropout.is_number() && dropout.get<double>() == 0)) {
    return section.Unsupported("dropout", "none");
  }
  const json& prefix = section.At("continuing_subword_prefix");
  if (!prefix.is_null() && prefix != json("")) {
    return section.Unsupported("continuing_subword_prefix", "none");
  }
  KINO_ASSIGN_OR_RETURN(const bool byte_fallback, section.Flag("byte_fallback", false));
  if (byte_fallback) return section.Unsupported("byte_fallback", "false");
  KINO_ASSIGN_OR_RETURN(model.fuse_unk, section.Flag("fuse_unk", false));
  KINO_ASSIGN_OR_RETURN(model.ignore_merges, section.Flag("ignore_merges", false));
  const json& suffix = section.At("end_of_word_suffix");
  if (!suffix.is_null() && !suffix.is_string()) {
    return section.Unsupported("end_of_word_suffix", "text");
  }
  if (suffix.is_string()) model.end_of_word_suffix = suffix.get<std::string>();
  const json& unknown = section.At("unk_token");
  if (!unknown.is_null() && !unknown.is_string()) return section.Unsupported("unk_token", "text");
  if (unknown.is_string()) model.unk_token = unknown.get<std::string>();
  return absl::OkStatus();
}

absl::Status ReadNormalizer(const Section& section, std::vector<NormalizerStep>& out) {
  return ForEachStep(
      section, "normalizers", [&](const Section& step, const std::string& type) -> absl::Status {
        if (type == "NFC") {
          out.emplace_back(NfcStep{});
        } else if (type == "Lowercase") {
          out.emplace_back(LowercaseStep{});
        } else if (type == "Replace") {
          KINO_ASSIGN_OR_RETURN(SplitPattern pattern, ReadPattern(step));
          if (!step.At("content").is_string()) return step.Unsupported("content", "text");
          out.emplace_back(ReplaceStep{std::move(pattern), step.At("content").get<std::string>()});
        } else {
          return step.Unsupported("type", "NFC, Lowercase, Replace or a Sequence of them");
        }
        return absl::OkStatus();
      });
}

absl::StatusOr<SplitStep> ReadSplit(const Section& step) {
  KINO_ASSIGN_OR_RETURN(SplitPattern pattern, ReadPattern(step));
  KINO_ASSIGN_OR_RETURN(const bool is_inverted, step.Flag("invert", false));
  SplitStep out{std::move(pattern)};
  const json& behavior = step.At("behavior");
  if (behavior == json("Removed")) {
    out.drops_matches = !is_inverted;
    out.drops_rest = is_inverted;
  } else if (behavior != json("Isolated")) {
    return step.Unsupported("behavior", "Isolated or Removed");
  }
  return out;
}

absl::Status ReadByteLevel(const Section& step, std::vector<SplitterStep>& out) {
  KINO_ASSIGN_OR_RETURN(const bool adds_space, step.Flag("add_prefix_space", false));
  KINO_ASSIGN_OR_RETURN(const bool uses_regex, step.Flag("use_regex", true));
  if (adds_space) out.emplace_back(PrefixSpaceStep{});
  if (!uses_regex) return absl::OkStatus();
  KINO_ASSIGN_OR_RETURN(SplitPattern pattern, SplitPattern::Create(kGpt2Pattern));
  out.emplace_back(SplitStep{std::move(pattern)});
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const Section& section, std::vector<SplitterStep>& out) {
  bool has_bytes = false;
  KINO_RETURN_IF_ERROR(ForEachStep(
      section, "pretokenizers", [&](const Section& step, const std::string& type) -> absl::Status {
        if (has_bytes) return step.Error("a step behind ByteLevel, which is not supported");
        if (type == "ByteLevel") {
          has_bytes = true;
          return ReadByteLevel(step, out);
        }
        if (type != "Split") return step.Unsupported("type", "Split or ByteLevel");
        KINO_ASSIGN_OR_RETURN(SplitStep split, ReadSplit(step));
        out.emplace_back(std::move(split));
        return absl::OkStatus();
      }));
  if (!has_bytes) return section.Error("no ByteLevel, so this is no byte-level tokenizer");
  return absl::OkStatus();
}

bool IsId(const json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() < INT32_MAX;
}

absl::StatusOr<Surroundings> ReadTemplate(const Section& step) {
  Surroundings out;
  bool has_prompt = false;
  for (const Section& item : step.List("single")) {
    const json& sequence = item.At("Sequence");
    if (!sequence.is_null()) {
      const bool is_prompt = item.Child("Sequence").At("id") == json("A");
      if (!is_prompt || has_prompt) return item.Unsupported("Sequence", "A, once");
      has_prompt = true;
      continue;
    }
    const json& name = item.Child("SpecialToken").At("id");
    if (!name.is_string()) return item.Error("neither Sequence nor SpecialToken");
    const std::string token = name.get<std::string>();
    const Section ids = step.Child("special_tokens").Child(token.c_str());
    if (!ids.At("ids").is_array()) return ids.Error("no list 'ids'");
    for (const json& id : ids.At("ids")) {
      if (!IsId(id)) return ids.Unsupported("ids", "ids");
      (has_prompt ? out.after : out.before).push_back(id.get<int64_t>());
    }
  }
  if (!has_prompt) return step.Unsupported("single", "a list with the Sequence A");
  return out;
}

// RoBERTa's and BERT's: one token in front, one behind, each as [token, id].
absl::StatusOr<Surroundings> ReadClsAndSep(const Section& step) {
  Surroundings out;
  for (const auto& [key, to] : {std::pair("cls", &out.before), std::pair("sep", &out.after)}) {
    const json& token = step.At(key);
    if (!token.is_array() || token.size() != 2 || !IsId(token[1])) {
      return step.Unsupported(key, "[token, id]");
    }
    to->push_back(token[1].get<int64_t>());
  }
  return out;
}

absl::Status ReadPostProcessor(const Section& section, Surroundings& out) {
  return ForEachStep(
      section, "processors", [&](const Section& step, const std::string& type) -> absl::Status {
        // It changes offsets alone.
        if (type == "ByteLevel") return absl::OkStatus();
        Surroundings more;
        if (type == "TemplateProcessing") {
          KINO_ASSIGN_OR_RETURN(more, ReadTemplate(step));
        } else if (type == "RobertaProcessing" || type == "BertProcessing") {
          KINO_ASSIGN_OR_RETURN(more, ReadClsAndSep(step));
        } else {
          return step.Unsupported("type",
                                  "ByteLevel, TemplateProcessing, RobertaProcessing or "
                                  "BertProcessing");
        }
        out.before.insert(out.before.begin(), more.before.begin(), more.before.end());
        out.after.insert(out.after.end(), more.after.begin(), more.after.end());
        return absl::OkStatus();
      });
}

Section FileSection(const json& file, const std::string& path, const char* key) {
  static const json null;
  const auto it = file.find(key);
  return {it == file.end() ? null : *it, absl::StrCat("'", path, "': ", key)};
}

absl::StatusOr<std::string> ReadMergesText(const std::string& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return absl::NotFoundError(absl::StrCat("'", path, "': ", error.message()));
  if (size > kMostMergesBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "': ", size, " bytes of merges, at most 64 MB accepted"));
  }
  std::string text(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(text.data(), static_cast<std::streamsize>(size))) {
    return absl::PermissionDeniedError(absl::StrCat("'", path, "': cannot be read"));
  }
  if (Utf8ErrorOffset(text) != text.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "': not UTF-8 at its byte ", Utf8ErrorOffset(text)));
  }
  return text;
}

}  // namespace

absl::StatusOr<BpeTokenizerJson> ReadBpeVocabularyJson(const std::string& path) {
  KINO_ASSIGN_OR_RETURN(const json file, ReadJsonFile(path));
  BpeTokenizerJson out;
  KINO_RETURN_IF_ERROR(ReadVocabulary(FileSection(file, path, "model"), out.model));
  KINO_ASSIGN_OR_RETURN(out.added_tokens,
                        ReadAddedTokens(FileSection(file, path, "added_tokens").object(),
                                        absl::StrCat("'", path, "'")));
  return out;
}

absl::StatusOr<BpeTokenizerJson> ReadBpeTokenizerJson(const std::string& path) {
  KINO_ASSIGN_OR_RETURN(const json file, ReadJsonFile(path));
  const auto section = [&](const char* key) { return FileSection(file, path, key); };
  BpeTokenizerJson out;
  KINO_RETURN_IF_ERROR(ReadVocabulary(section("model"), out.model));
  KINO_RETURN_IF_ERROR(ReadModelOptions(section("model"), out.model));
  KINO_RETURN_IF_ERROR(ReadNormalizer(section("normalizer"), out.normalizer));
  KINO_RETURN_IF_ERROR(ReadPreTokenizer(section("pre_tokenizer"), out.splitter));
  KINO_RETURN_IF_ERROR(ReadPostProcessor(section("post_processor"), out.surroundings));
  KINO_ASSIGN_OR_RETURN(out.added_tokens, ReadAddedTokens(section("added_tokens").object(),
                                                          absl::StrCat("'", path, "'")));
  return out;
}

absl::StatusOr<BpeModel> ReadBpeFiles(const std::string& vocab_path,
                                      const std::string& merges_path) {
  BpeModel model;
  KINO_ASSIGN_OR_RETURN(const json vocab, ReadJsonFile(vocab_path));
  KINO_RETURN_IF_ERROR(ReadVocab(vocab, absl::StrCat("'", vocab_path, "': vocabulary"), model));
  KINO_ASSIGN_OR_RETURN(const std::string text, ReadMergesText(merges_path));
  int line_number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    ++line_number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with(kVersion)) continue;
    std::optional<MergePair> pair = ParseMergeLine(line);
    if (!pair) {
      return absl::InvalidArgumentError(absl::StrCat("'", merges_path, "': line ", line_number,
                                                     " is not two tokens with a space between"));
    }
    model.merges.push_back(*std::move(pair));
  }
  return model;
}

}  // namespace kino::engine
