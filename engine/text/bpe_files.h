// The files of byte-level BPE tokenizers: tokenizer.json (Hugging Face tokenizers' own format), and
// CLIP's vocab.json and merges.txt. What is not understood there is refused by name; "padding",
// "truncation" and "decoder" have no effect on ids and are not read.
//
// Source: Hugging Face tokenizers 0.23: models/bpe, normalizers, pre_tokenizers, processors.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/added_tokens.h"
#include "engine/text/bpe.h"
#include "engine/text/split_pattern.h"

namespace kino::engine {

// Steps of "normalizer".
struct NfcStep {};
struct LowercaseStep {};
struct ReplaceStep {
  SplitPattern pattern;
  std::string content;  // for each match
};
using NormalizerStep = std::variant<NfcStep, LowercaseStep, ReplaceStep>;

// Steps of "pre_tokenizer" before the bytes are spelt.
struct SplitStep {
  SplitPattern pattern;
  // "Removed" leaves out what matches, or what does not where "invert" is true; "Isolated" keeps
  // all.
  bool drops_matches = false;
  bool drops_rest = false;
};
// ByteLevel's "add_prefix_space": a space in front of each piece that has none there.
struct PrefixSpaceStep {};
using SplitterStep = std::variant<SplitStep, PrefixSpaceStep>;

// What "post_processor" puts around a prompt's ids.
struct Surroundings {
  std::vector<int64_t> before, after;
};

struct BpeTokenizerJson {
  BpeModel model;
  std::vector<NormalizerStep> normalizer;
  std::vector<SplitterStep> splitter;
  Surroundings surroundings;
  std::vector<std::pair<int64_t, AddedToken>> added_tokens;
};

// GPT-2's pattern, which ByteLevel splits by where "use_regex" is true.
extern const char kGpt2Pattern[];

// All of a tokenizer.json. NOT_FOUND, INVALID_ARGUMENT (malformed, not supported, larger than 64
// MB) name the file and the key.
absl::StatusOr<BpeTokenizerJson> ReadBpeTokenizerJson(const std::string& path);

// Its "model" (vocabulary and merges alone) and its added tokens, for a class that makes the rest
// itself. Errors as above.
absl::StatusOr<BpeTokenizerJson> ReadBpeVocabularyJson(const std::string& path);

// vocab.json (token to id) and merges.txt (two tokens a line, lines of "#version" left out). Errors
// as above, naming the one or the other.
absl::StatusOr<BpeModel> ReadBpeFiles(const std::string& vocab_path,
                                      const std::string& merges_path);

}  // namespace kino::engine
