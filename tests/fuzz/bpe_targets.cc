// Files of byte-level BPE tokenizers as model folders bring them, and prompts to such tokenizers.
#include <memory>

#include "engine/text/bpe_tokenizer.h"
#include "engine/text/byte_level.h"
#include "nlohmann/json.hpp"
#include "tests/fuzz/framed.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/temp_dir.h"

namespace kino::fuzz {
namespace {

using engine::BpeTokenizer;
using Loaded = absl::StatusOr<std::unique_ptr<BpeTokenizer>>;

// Well-formed UTF-8: contractions, numbers, combining marks, odd spaces, emoji, a control
// character, added tokens.
constexpr char kPrompt[] =
    "A cat's 1234 \xc3\x89\xcc\x81\xcc\xa7 \xe3\x80\x80\xc2\xa0\n\n \xf0\x9f\x98\x80\x01 "
    "<|eot_id|><image>  \xe4\xb8\xad<|endoftext|>x";

constexpr char kConfig[] =
    R"({"pad_token":"<pad>","bos_token":"<|begin_of_text|>","extra_special_tokens":["<image>"]})";

// LLaMA-3's form, with all bytes and a few merges.
nlohmann::json ByteLevelFile() {
  nlohmann::json file = nlohmann::json::parse(
      R"({"version":"1.0","added_tokens":[{"id":260,"content":"<|begin_of_text|>","special":true},)"
      R"({"id":261,"content":"<|eot_id|>","lstrip":true,"rstrip":true,"special":true},)"
      R"({"id":262,"content":"<pad>","special":true},)"
      R"({"id":263,"content":"Cat","single_word":true,"normalized":true}],)"
      R"("normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Lowercase"},)"
      R"({"type":"Replace","pattern":{"Regex":"\\s+"},"content":" "}]},)"
      R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":)"
      R"("(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s+(?!\\S)|\\s+"},)"
      R"("behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":true,)"
      R"("use_regex":true}]},"post_processor":{"type":"Sequence","processors":[)"
      R"({"type":"ByteLevel"},{"type":"TemplateProcessing","single":[)"
      R"({"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],)"
      R"("special_tokens":{"<s>":{"ids":[260]}}}]},)"
      R"("model":{"type":"BPE","ignore_merges":true,"merges":[["c","a"],"ca t"]}})");
  nlohmann::json& vocab = file["model"]["vocab"];
  for (int byte = 0; byte < 256; ++byte) {
    vocab[std::string(engine::ByteLevelCharacter(static_cast<unsigned char>(byte)))] = byte;
  }
  for (const char* token : {"ca", "cat", "\xc4\xa0x"}) vocab[token] = vocab.size();
  return file;
}

void Encode(const BpeTokenizer& tokenizer, std::string_view prompt) {
  Require(tokenizer.pad_id() >= 0 && tokenizer.pad_id() < tokenizer.vocab_size(), "pad is an id");
  const auto whole = tokenizer.EncodeWhole(prompt);
  const auto cut = tokenizer.Encode(prompt, 64);
  Require(whole.ok() || !whole.status().message().empty(), "a refusal says why");
  if (!whole.ok()) return;
  for (const int64_t id : *whole) {
    Require(id >= 0 && id < tokenizer.vocab_size(), "an id is in the vocabulary");
  }
  // More than that many may stand around a prompt.
  if (!cut.ok()) return;
  Require(cut->ids.size() == 64 && cut->attention_mask.size() == 64,
          "a cut prompt has the length asked for");
}

struct File {
  std::string name;
  std::string_view bytes;
};

template <typename Load>
bool RunFolder(const Load& load, const std::vector<File>& files) {
  const testing::TempDir folder;
  for (const File& file : files) folder.Write(file.name, file.bytes);
  const Loaded tokenizer = load(folder.path());
  if (!tokenizer.ok()) {
    Require(!tokenizer.status().message().empty(), "a refusal says why");
    return false;
  }
  Encode(**tokenizer, kPrompt);
  return true;
}

bool RunByteLevel(std::string_view bytes) {
  return RunFolder(BpeTokenizer::LoadByteLevel,
                   {{"tokenizer.json", bytes}, {"tokenizer_config.json", kConfig}});
}
std::vector<std::string> ByteLevelSeeds() {
  nlohmann::json file = ByteLevelFile();
  const std::string first = file.dump();
  // GPT-2's form, in which most bytes are missing.
  file["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  file["post_processor"] = {{"type", "RobertaProcessing"}, {"sep", {"a", 2}}, {"cls", {"b", 1}}};
  file["normalizer"] = nullptr;
  file["model"] = {{"type", "BPE"},
                   {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {"?", 3}}},
                   {"merges", {"a b"}},
                   {"unk_token", "?"},
                   {"fuse_unk", true}};
  return {first, file.dump()};
}

std::string ClipVocab() {
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string c(engine::ByteLevelCharacter(static_cast<unsigned char>(byte)));
    vocab[c] = byte;
    vocab[c + "</w>"] = 256 + byte;
  }
  for (const char* token : {"ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"}) {
    vocab[token] = vocab.size();
  }
  return vocab.dump();
}
constexpr char kClipMerges[] = "#version: 0.2\nc a\nca t</w>\n";

// vocab.json, merges.txt and tokenizer_config.json as frames.
bool RunClip(std::string_view bytes) {
  const std::string_view vocab = TakeFrame(bytes);
  const std::string_view merges = TakeFrame(bytes);
  return RunFolder(
      BpeTokenizer::LoadClip,
      {{"vocab.json", vocab}, {"merges.txt", merges}, {"tokenizer_config.json", bytes}});
}
std::vector<std::string> ClipSeeds() {
  return {Frame(ClipVocab()) + Frame(kClipMerges) + "{}",
          Frame(R"({"a</w>":0,"b":1,"<|startoftext|>":2,"<|endoftext|>":3,"ba</w>":4})") +
              Frame("b a</w>\n") +
              R"({"pad_token":"!","bos_token":{"content":"<|startoftext|>","normalized":true}})"};
}

// Any bytes at all are a prompt; the tokenizers refuse those that are no UTF-8.
bool RunBpePrompt(std::string_view bytes) {
  static const std::vector<const BpeTokenizer*> tokenizers = [] {
    const testing::TempDir folder;
    folder.Write("tokenizer.json", ByteLevelFile().dump());
    folder.Write("tokenizer_config.json", kConfig);
    Loaded byte_level = BpeTokenizer::LoadByteLevel(folder.path());
    const testing::TempDir clip_folder;
    clip_folder.Write("vocab.json", ClipVocab());
    clip_folder.Write("merges.txt", kClipMerges);
    Loaded clip = BpeTokenizer::LoadClip(clip_folder.path());
    Require(byte_level.ok() && clip.ok(), "the seeds are tokenizers");
    return std::vector<const BpeTokenizer*>{byte_level->release(), clip->release()};
  }();
  for (const BpeTokenizer* tokenizer : tokenizers) {
    Encode(*tokenizer, bytes);
    if (!tokenizer->EncodeWhole(bytes).ok()) return false;
  }
  return true;
}
std::vector<std::string> BpePromptSeeds() {
  return {kPrompt, "", "<|startoftext|>a CAT'S cat<|eot_id|>  <pad>\r\n\t 12345"};
}

}  // namespace

std::vector<FuzzTarget> BpeTargets() {
  return {{"bpe_tokenizer_json", RunByteLevel, ByteLevelSeeds, 500},
          {"clip_files", RunClip, ClipSeeds, 500},
          {"bpe_prompt", RunBpePrompt, BpePromptSeeds, 2000}};
}

}  // namespace kino::fuzz
