// Tokenizer files as model folders bring them, and prompts.
#include <filesystem>

#include "engine/text/charsmap.h"
#include "engine/text/sentencepiece_model.h"
#include "engine/text/t5_tokenizer.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/temp_dir.h"

namespace kino::fuzz {
namespace {

// Well-formed UTF-8: combining marks, a ligature, full width, emoji, a control character, an added
// token.
constexpr char kPrompt[] =
    "a red star</s> \xef\xac\x81 \xc2\xaa\xcc\x81 \xef\xbc\xa1\xe3\x80\x80 \xf0\x9f\x98\x80\x01 "
    "<extra_id_3>  x";

std::string DemoTokenizer() { return std::string(KINO_SOURCE_DIR) + "/models/demo/tokenizer"; }

void Encode(const engine::T5Tokenizer& tokenizer) {
  Require(tokenizer.pad_id() >= 0 && tokenizer.pad_id() < tokenizer.vocab_size(), "pad is an id");
  const auto whole = tokenizer.EncodeWhole(kPrompt);
  Require(whole.ok() && !whole->empty(), "a loaded tokenizer encodes every prompt");
  for (const int64_t id : *whole) {
    Require(id >= 0 && id < tokenizer.vocab_size(), "an id is in the vocabulary");
  }
  const auto cut = tokenizer.Encode(kPrompt, 4);
  Require(cut.ok() && cut->ids.size() == 4 && cut->attention_mask.size() == 4,
          "a cut prompt has the length asked for");
}

// A folder in which one file is the input.
bool RunFolder(const std::string& name, std::string_view bytes, const std::string& other_name,
               std::string_view other) {
  static const testing::TempDir* const folder = new testing::TempDir;
  if (!other_name.empty()) folder->Write(other_name, other);
  folder->Write(name, bytes);
  const auto tokenizer = engine::T5Tokenizer::Load(folder->path());
  std::filesystem::remove(folder->path() + "/" + name);
  if (!other_name.empty()) std::filesystem::remove(folder->path() + "/" + other_name);
  if (!tokenizer.ok()) {
    Require(!tokenizer.status().message().empty(), "a refusal says why");
    return false;
  }
  Encode(**tokenizer);
  return true;
}

// A charsmap whose trie has one unit that leads nowhere.
constexpr char kVocabulary[] =
    R"({"version":"1.0","added_tokens":[{"id":0,"content":"<pad>","single_word":false,)"
    R"("lstrip":false,"rstrip":true,"normalized":false,"special":true},)"
    R"({"id":1,"content":"</s>","special":true}],)"
    R"("normalizer":{"type":"Sequence","normalizers":[{"type":"Precompiled",)"
    R"("precompiled_charsmap":"BAAAAAAAAAAA"},{"type":"Lowercase"}]},)"
    R"("model":{"type":"Unigram","unk_id":2,"vocab":[["<pad>",0.0],["</s>",0.0],["<unk>",0.0],)"
    R"(["\u2581",-2.5],["a",-3.1],["re",-4],["\u2581star",-5.5],["<extra_id_3>",-1]]}})";

bool RunTokenizerJson(std::string_view bytes) { return RunFolder("tokenizer.json", bytes, "", ""); }
std::vector<std::string> TokenizerJsonSeeds() { return {kVocabulary}; }

bool RunTokenizerConfig(std::string_view bytes) {
  return RunFolder("tokenizer_config.json", bytes, "tokenizer.json", kVocabulary);
}
std::vector<std::string> TokenizerConfigSeeds() {
  return {
      "{}",
      R"({"extra_ids":3,"eos_token":"</s>","unk_token":{"content":"<unk>","lstrip":true},)"
      R"("pad_token":"<pad>","additional_special_tokens":["<extra_id_0>","<extra_id_1>",)"
      R"("<extra_id_2>"],"added_tokens_decoder":{"0":{"content":"<pad>","special":true},)"
      R"("5":{"content":"re","rstrip":true,"normalized":true,"special":false}}})",
  };
}

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}
// A length-delimited protobuf field.
std::string Field(int number, const std::string& content) {
  return Varint(static_cast<uint64_t>(number) << 3 | 2) + Varint(content.size()) + content;
}
// ModelProto.SentencePiece: piece = 1, score = 2 (a little-endian float), type = 3.
std::string Piece(const std::string& text, const std::string& score, char type) {
  return Field(1, Field(1, text) + "\x15" + score + "\x18" + type);
}

bool RunSpiece(std::string_view bytes) {
  const auto model = engine::ParseSentencePieceModel(bytes);
  Require(model.ok() || !model.status().message().empty(), "a refusal says why");
  return RunFolder("spiece.model", bytes, "", "") && model.ok();
}
std::vector<std::string> SpieceSeeds() {
  const std::string zero(4, '\0'), minus_two("\0\0\0\xc0", 4);
  const std::string pieces = Piece("<pad>", zero, 3) + Piece("</s>", zero, 3) +
                             Piece("<unk>", zero, 2) + Piece("\xe2\x96\x81", minus_two, 1) +
                             Piece("a", minus_two, 1) + Piece("<user>", zero, 4);
  const std::string charsmap("\4\0\0\0\0\0\0\0\0", 9);
  return {
      pieces,
      // TrainerSpec = 2 (model_type = 3, a varint), NormalizerSpec = 3 (name = 1, charsmap = 2).
      pieces + Field(2, "\x18\x01") + Field(3, Field(1, "nmt_nfkc") + Field(2, charsmap)),
  };
}

bool RunCharsmap(std::string_view bytes) {
  const auto charsmap = engine::Charsmap::Parse(bytes);
  if (!charsmap.ok()) return false;
  charsmap->Normalize(kPrompt);
  return true;
}
std::vector<std::string> CharsmapSeeds() {
  const auto demo = engine::ReadSentencePieceModel(DemoTokenizer() + "/spiece.model");
  Require(demo.ok(), "the demo model has a spiece.model");
  return {std::string("\4\0\0\0\0\0\0\0\0", 9), demo->precompiled_charsmap};
}

// Any bytes at all are a prompt; the tokenizer refuses those that are no UTF-8.
bool RunPrompt(std::string_view bytes) {
  static const engine::T5Tokenizer* const tokenizer = [] {
    auto loaded = engine::T5Tokenizer::Load(DemoTokenizer());
    Require(loaded.ok(), "the demo model has a tokenizer");
    return loaded->release();
  }();
  const auto ids = tokenizer->EncodeWhole(bytes);
  if (!ids.ok()) return false;
  Require(!ids->empty() && ids->back() == tokenizer->eos_id(), "</s> ends a prompt");
  for (const int64_t id : *ids) {
    Require(id >= 0 && id < tokenizer->vocab_size(), "an id is in the vocabulary");
  }
  return true;
}
std::vector<std::string> PromptSeeds() {
  return {kPrompt, "", "a blue square moving to the left over a white background"};
}

}  // namespace

std::vector<FuzzTarget> TextTargets() {
  return {{"tokenizer_json", RunTokenizerJson, TokenizerJsonSeeds, 1000},
          {"tokenizer_config", RunTokenizerConfig, TokenizerConfigSeeds, 1000},
          {"spiece", RunSpiece, SpieceSeeds, 1000},
          {"charsmap", RunCharsmap, CharsmapSeeds, 1000},
          {"prompt", RunPrompt, PromptSeeds, 2000}};
}

}  // namespace kino::fuzz
