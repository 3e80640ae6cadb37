#include "engine/text/tokenizer_config.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

using nlohmann::json;

constexpr int kMaxExtraIds = 65536;
constexpr std::array kNamedTokens = {"bos_token", "eos_token", "unk_token", "sep_token",
                                     "pad_token", "cls_token", "mask_token"};

bool IsNamedToken(const std::string& key) {
  return std::find(kNamedTokens.begin(), kNamedTokens.end(), key) != kNamedTokens.end();
}

// The file's object, or an empty one when there is no such file.
absl::StatusOr<json> ReadOptional(const std::string& folder, const char* name) {
  const std::string path = absl::StrCat(folder, "/", name);
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return json::object();
  return ReadJsonFile(path);
}

bool IsTruthy(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && !it->is_null() && !it->empty();
}

// Gathers the files' tokens in the reference's own steps, whose names are kept.
class TokenCollector {
 public:
  TokenCollector(std::string folder, const VocabularyTokens& vocabulary,
                 const TokenizerClass& tokenizer_class)
      : folder_(std::move(folder)), vocabulary_(vocabulary), class_(tokenizer_class) {}

  absl::StatusOr<TokenizerConfig> Collect() {
    KINO_ASSIGN_OR_RETURN(config_, ReadOptional(folder_, "tokenizer_config.json"));
    KINO_RETURN_IF_ERROR(ReadScalars());
    KINO_RETURN_IF_ERROR(ReadConfigTokens());
    if (config_.contains("added_tokens_decoder")) {
      KINO_RETURN_IF_ERROR(ReadAddedTokensDecoder());
    } else {
      KINO_RETURN_IF_ERROR(ReadLegacyFiles());
    }
    if (class_.has_sentinels) KINO_RETURN_IF_ERROR(ReadSentinels());
    return Assemble();
  }

 private:
  std::string Where(const char* file, const std::string& key) const {
    return absl::StrCat("'", folder_, "/", file, "': ", key);
  }

  absl::Status ReadScalars() {
    const std::string where = absl::StrCat("'", folder_, "/tokenizer_config.json'");
    ConfigReader reader(config_, where);
    out_.extra_ids = reader.Get("extra_ids", out_.extra_ids);
    out_.split_special_tokens = reader.Get("split_special_tokens", false);
    const std::string padding_side = reader.Get("padding_side", std::string("right"));
    const std::string truncation_side = reader.Get("truncation_side", std::string("right"));
    KINO_RETURN_IF_ERROR(reader.status());
    if (out_.extra_ids < 0 || out_.extra_ids > kMaxExtraIds) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": extra_ids is ", out_.extra_ids, ", expected 0 to ", kMaxExtraIds));
    }
    for (const auto& [key, side] :
         {std::pair("padding_side", padding_side), std::pair("truncation_side", truncation_side)}) {
      if (side == "right") continue;
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": ", key, " '", side, "' is not supported, only 'right'"));
    }
    if (config_.contains("fast_tokenizer_files")) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": fast_tokenizer_files is not supported"));
    }
    return absl::OkStatus();
  }

  // A list of tokens, or nothing when the key is null.
  absl::StatusOr<std::vector<AddedToken>> ReadTokenList(const json& list,
                                                        const std::string& where) {
    std::vector<AddedToken> tokens;
    if (list.is_null()) return tokens;
    if (!list.is_array())
      return absl::InvalidArgumentError(absl::StrCat(where, ": expected a list of tokens"));
    for (const json& item : list) {
      KINO_ASSIGN_OR_RETURN(tokens.emplace_back(), ParseAddedToken(item, where));
    }
    return tokens;
  }

  // A dict of named tokens of the model's own.
  absl::Status ReadModelSpecific(const json& dict, const std::string& where) {
    for (const auto& [key, value] : dict.items()) {
      KINO_ASSIGN_OR_RETURN(AddedToken token, ParseAddedToken(value, where));
      model_specific_.push_back(std::move(token));
    }
    return absl::OkStatus();
  }

  absl::Status ReadConfigTokens() {
    const char* file = "tokenizer_config.json";
    // The old name counts where the new one is absent or empty.
    if (config_.contains("additional_special_tokens") &&
        !IsTruthy(config_, "extra_special_tokens")) {
      config_["extra_special_tokens"] = config_["additional_special_tokens"];
      config_.erase("additional_special_tokens");
    }
    for (const auto& [key, value] : config_.items()) {
      if (value.is_null()) continue;
      if (IsNamedToken(key)) {
        KINO_ASSIGN_OR_RETURN(named_[key], ParseAddedToken(value, Where(file, key)));
      } else if (absl::EndsWith(key, "_token") && value.is_string()) {
        model_specific_.push_back({.content = value.get<std::string>(), .special = true});
      }
    }
    if (config_.contains("extra_special_tokens")) {
      const json& extra = config_["extra_special_tokens"];
      const std::string where = Where(file, "extra_special_tokens");
      if (extra.is_object()) return ReadModelSpecific(extra, where);
      KINO_ASSIGN_OR_RETURN(extra_, ReadTokenList(extra, where));
    }
    if (config_.contains("additional_special_tokens")) {
      KINO_ASSIGN_OR_RETURN(additional_, ReadTokenList(config_["additional_special_tokens"],
                                                       Where(file, "additional_special_tokens")));
    }
    return absl::OkStatus();
  }

  absl::Status ReadAddedTokensDecoder() {
    const json& decoder = config_["added_tokens_decoder"];
    const std::string where = Where("tokenizer_config.json", "added_tokens_decoder");
    if (!decoder.is_object())
      return absl::InvalidArgumentError(absl::StrCat(where, ": expected an object"));
    for (const auto& [key, value] : decoder.items()) {
      int64_t id = 0;
      if (!absl::SimpleAtoi(key, &id) || !value.is_object()) {
        return absl::InvalidArgumentError(
            absl::StrCat(where, "['", key, "']: expected an id and a token object"));
      }
      KINO_ASSIGN_OR_RETURN(decoder_[id],
                            ParseAddedToken(value, absl::StrCat(where, "['", key, "']")));
    }
    return absl::OkStatus();
  }

  // Folders written before "added_tokens_decoder" existed.
  absl::Status ReadLegacyFiles() {
    const char* file = "special_tokens_map.json";
    KINO_ASSIGN_OR_RETURN(const json map, ReadOptional(folder_, file));
    for (const auto& [key, value] : map.items()) {
      const std::string where = Where(file, key);
      if (key == "extra_special_tokens") {
        if (value.is_object()) {
          KINO_RETURN_IF_ERROR(ReadModelSpecific(value, where));
          continue;
        }
        KINO_ASSIGN_OR_RETURN(auto tokens, ReadTokenList(value, where));
        if (!extra_) extra_.emplace();
        for (AddedToken& token : tokens) {
          token.special = true;
          extra_->push_back(std::move(token));
        }
      } else if (key == "additional_special_tokens") {
        KINO_ASSIGN_OR_RETURN(additional_, ReadTokenList(value, where));
      } else if (value.is_null()) {
        named_.erase(key);
      } else if (IsNamedToken(key) || absl::EndsWith(key, "_token")) {
        KINO_ASSIGN_OR_RETURN(AddedToken token, ParseAddedToken(value, where));
        token.special = true;
        if (IsNamedToken(key)) {
          named_[key] = std::move(token);
        } else {
          model_specific_.push_back(std::move(token));
        }
      }
    }
    KINO_RETURN_IF_ERROR(ReadAddedTokensFile());
    for (const auto& [id, token] : vocabulary_.added_tokens) decoder_[id] = token;
    return absl::OkStatus();
  }

  absl::Status ReadAddedTokensFile() {
    const char* file = "added_tokens.json";
    KINO_ASSIGN_OR_RETURN(const json tokens, ReadOptional(folder_, file));
    std::set<std::string> special;
    for (const auto& [key, token] : named_) special.insert(token.content);
    for (const AddedToken& token : extra_.value_or(std::vector<AddedToken>()))
      special.insert(token.content);
    for (const auto& [content, id] : tokens.items()) {
      if (!id.is_number_integer()) {
        return absl::InvalidArgumentError(absl::StrCat(Where(file, content), ": expected an id"));
      }
      const bool is_special = special.contains(content);
      decoder_[id.get<int64_t>()] = {
          .content = content, .special = is_special, .normalized = !is_special};
    }
    return absl::OkStatus();
  }

  // T5Tokenizer's own part: the sentinels, unless the files bring them.
  absl::Status ReadSentinels() {
    if (vocabulary_.additional_special_tokens) additional_ = vocabulary_.additional_special_tokens;
    const auto is_sentinel = [](const AddedToken& token) {
      return absl::StrContains(token.content, "<extra_id_");
    };
    std::ptrdiff_t sentinels = 0;
    if (additional_) {
      sentinels = std::count_if(additional_->begin(), additional_->end(), is_sentinel);
      if (sentinels > 0 && out_.extra_ids > 0 && sentinels != out_.extra_ids) {
        return absl::InvalidArgumentError(absl::StrCat("'", folder_, "': ", sentinels,
                                                       " <extra_id_> tokens beside extra_ids ",
                                                       out_.extra_ids, ", expected as many"));
      }
    } else {
      additional_.emplace();
    }
    if (sentinels == 0) {
      for (int i = 0; i < out_.extra_ids; ++i) {
        additional_->push_back({.content = SentinelToken(i), .special = true});
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<TokenizerConfig> Assemble() {
    // A named token takes over the flags that the decoder gives the same text.
    for (auto& [key, token] : named_) {
      for (const auto& [id, known] : decoder_) {
        if (known.content == token.content) token = known;
      }
    }
    for (const auto& [key, content] : class_.named_tokens) {
      if (!named_.contains(key)) named_[key] = {.content = content, .special = true};
    }
    for (const auto& [key, token] : named_) out_.named_tokens[key] = token.content;

    std::set<std::string> is_known;
    const auto add_known = [&](const auto& tokens) {
      for (const auto& [id, token] : tokens) {
        out_.added_tokens.push_back(token);
        is_known.insert(token.content);
      }
    };
    if (class_.keeps_file_tokens) add_known(vocabulary_.added_tokens);
    const size_t first_of_config = out_.added_tokens.size();
    add_known(decoder_);
    std::vector<AddedToken> rest;
    for (const char* key : kNamedTokens) {
      if (named_.contains(key)) rest.push_back(named_[key]);
    }
    rest.insert(rest.end(), model_specific_.begin(), model_specific_.end());
    std::set<std::string> names;
    for (const AddedToken& token : rest) names.insert(token.content);
    // Where the files list extra tokens, theirs replace the class's own list.
    const std::vector<AddedToken> extra =
        extra_ ? *extra_ : additional_.value_or(std::vector<AddedToken>());
    rest.insert(rest.end(), extra.begin(), extra.end());
    for (const AddedToken& token : rest) {
      if (!is_known.contains(token.content)) out_.added_tokens.push_back(token);
    }
    for (size_t i = first_of_config; i < out_.added_tokens.size(); ++i) {
      out_.added_tokens[i].special |= names.contains(out_.added_tokens[i].content);
    }
    return out_;
  }

  const std::string folder_;
  const VocabularyTokens& vocabulary_;
  const TokenizerClass& class_;
  json config_;
  TokenizerConfig out_;
  std::map<std::string, AddedToken> named_;            // by key: "pad_token"
  std::vector<AddedToken> model_specific_;             // other keys that end in "_token"
  std::optional<std::vector<AddedToken>> extra_;       // "extra_special_tokens"
  std::optional<std::vector<AddedToken>> additional_;  // "additional_special_tokens"
  std::map<int64_t, AddedToken> decoder_;              // "added_tokens_decoder"
};

}  // namespace

absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::string& folder,
                                                    const VocabularyTokens& vocabulary,
                                                    const TokenizerClass& tokenizer_class) {
  return TokenCollector(folder, vocabulary, tokenizer_class).Collect();
}

absl::StatusOr<int> ReadExtraIds(const std::string& folder) {
  KINO_ASSIGN_OR_RETURN(const json config, ReadOptional(folder, "tokenizer_config.json"));
  ConfigReader reader(config, absl::StrCat("'", folder, "/tokenizer_config.json'"));
  const int extra_ids = reader.Get("extra_ids", TokenizerConfig().extra_ids);
  KINO_RETURN_IF_ERROR(reader.status());
  return std::max(extra_ids, 0);
}

std::string SentinelToken(int index) { return absl::StrCat("<extra_id_", index, ">"); }

}  // namespace kino::engine
