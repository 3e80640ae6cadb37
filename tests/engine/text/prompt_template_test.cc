// Where a prompt and an image stand among a template's tokens, counted by hand: each letter is a
// token here. The parity runs hold the published templates against diffusers.
#include "engine/text/prompt_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/fixture_folder.h"

namespace kino::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Ids = std::vector<int64_t>;

enum : int64_t { kNewline = 26, kStart, kEndOfHeader, kEndOfTurn, kPad, kImage };

int64_t Letter(char letter) { return letter - 'a'; }

std::unique_ptr<BpeTokenizer> Tokenizer(std::vector<std::string> special) {
  nlohmann::json vocab, added = nlohmann::json::array();
  for (char letter = 'a'; letter <= 'z'; ++letter) vocab[std::string(1, letter)] = Letter(letter);
  vocab["\u010a"] = kNewline;  // a byte-level name
  for (size_t i = 0; i < special.size(); ++i) {
    added.push_back({{"id", kStart + static_cast<int64_t>(i)},
                     {"content", special[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const FixtureFolder folder;
  folder.Write("tokenizer.json", nlohmann::json{{"version", "1.0"},
                                                {"added_tokens", added},
                                                {"normalizer", nullptr},
                                                {"pre_tokenizer",
                                                 {{"type", "ByteLevel"},
                                                  {"add_prefix_space", false},
                                                  {"trim_offsets", true},
                                                  {"use_regex", true}}},
                                                {"post_processor", nullptr},
                                                {"model",
                                                 {{"type", "BPE"},
                                                  {"dropout", nullptr},
                                                  {"unk_token", nullptr},
                                                  {"continuing_subword_prefix", nullptr},
                                                  {"end_of_word_suffix", nullptr},
                                                  {"fuse_unk", false},
                                                  {"byte_fallback", false},
                                                  {"ignore_merges", false},
                                                  {"vocab", vocab},
                                                  {"merges", nlohmann::json::array()}}}}
                                     .dump());
  folder.Write("tokenizer_config.json", R"({"pad_token": "<pad>"})");
  auto tokenizer = BpeTokenizer::LoadByteLevel(folder.path());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

// The image's token last, so that a tokenizer can be without it.
const std::vector<std::string> kSpecial = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                                           "<pad>", "<image>"};
constexpr PromptTemplate kText = {"<|start_header_id|>s<|end_header_id|>", "<|eot_id|>", 3, false};
// As long in front of the image, and with as many headers, as the published one.
constexpr PromptTemplate kWithImage = {
    "<|start_header_id|>sys<|end_header_id|><image><|eot_id|><|start_header_id|>u<|end_header_id|>",
    "<|eot_id|><|start_header_id|>a<|end_header_id|>\n", 10, true};

class PromptTemplateTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(tokenizer_, nullptr); }
  TemplatedPrompt In(const PromptTemplate& around, const std::string& prompt,
                     int max_length) const {
    auto result = TokenizeInTemplate(tokenizer_.get(), around, prompt, max_length);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *std::move(result) : TemplatedPrompt();
  }

  const std::unique_ptr<BpeTokenizer> tokenizer_ = Tokenizer(kSpecial);
};

// The ids without those of the image but one, which all have to be there.
Ids WithOneImageToken(const Ids& ids) {
  const auto first = std::find(ids.begin(), ids.end(), kImage);
  const auto behind = std::find_if(first, ids.end(), [](int64_t id) { return id != kImage; });
  EXPECT_EQ(behind - first, kImageTokens);
  Ids one(ids.begin(), first);
  one.push_back(kImage);
  one.insert(one.end(), behind, ids.end());
  return one;
}

TEST_F(PromptTemplateTest, TextBeginsBehindTheTemplateAndEndsWithItsEnd) {
  const TemplatedPrompt prompt = In(kText, "xy", 6);
  const int64_t x = Letter('x'), y = Letter('y'), s = Letter('s');
  EXPECT_THAT(prompt.padded,
              ElementsAre(kStart, s, kEndOfHeader, x, y, kEndOfTurn, kPad, kPad, kPad));
  EXPECT_THAT(prompt.encoded, ElementsAre(kStart, s, kEndOfHeader, x, y, kEndOfTurn));
  EXPECT_THAT(prompt.text, ElementsAre(TokenRange{3, 6}));
  EXPECT_EQ(prompt.image, TokenRange());
}

TEST_F(PromptTemplateTest, PromptThatIsTooLongLosesItsEnd) {
  const TemplatedPrompt prompt = In(kText, "vwxyz", 4);
  EXPECT_EQ(prompt.encoded, prompt.padded);
  EXPECT_THAT(prompt.encoded, ElementsAre(kStart, Letter('s'), kEndOfHeader, Letter('v'),
                                          Letter('w'), Letter('x'), Letter('y')));
  EXPECT_THAT(prompt.text, ElementsAre(TokenRange{3, 7}));
}

TEST_F(PromptTemplateTest, NoPromptLeavesTheEndOfItsTurn) {
  EXPECT_THAT(In(kText, "", 6).text, ElementsAre(TokenRange{3, 4}));
}

TEST_F(PromptTemplateTest, APromptMayHoldSpecialTokens) {
  const TemplatedPrompt prompt = In(kText, "x<|eot_id|>y<image>", 9);
  EXPECT_THAT(prompt.encoded, ElementsAre(kStart, Letter('s'), kEndOfHeader, Letter('x'),
                                          kEndOfTurn, Letter('y'), kImage, kEndOfTurn));
  EXPECT_THAT(prompt.text, ElementsAre(TokenRange{3, 8}));
}

TEST_F(PromptTemplateTest, AnImageStandsInItsPlaceAndTheAssistantsHeaderIsCutOut) {
  const TemplatedPrompt prompt = In(kWithImage, "xyz", 12);
  const Ids encoded = {kStart,      Letter('s'),  Letter('y'), Letter('s'), kEndOfHeader,
                       kImage,      kEndOfTurn,   kStart,      Letter('u'), kEndOfHeader,
                       Letter('x'), Letter('y'),  Letter('z'), kEndOfTurn,  kStart,
                       Letter('a'), kEndOfHeader, kNewline};
  EXPECT_EQ(WithOneImageToken(prompt.encoded), encoded);
  Ids padded = encoded;
  padded.insert(padded.end(), {kPad, kPad, kPad, kPad});
  EXPECT_EQ(WithOneImageToken(prompt.padded), padded);
  EXPECT_EQ(prompt.image, (TokenRange{5, 5 + kImageTokens}));
  const int64_t shift = kImageTokens - 1;
  EXPECT_THAT(prompt.text,
              ElementsAre(TokenRange{10 + shift, 13 + shift}, TokenRange{17 + shift, 18 + shift}));
}

// With the assistant's header some of the prompt goes: so diffusers has it.
TEST_F(PromptTemplateTest, APromptThatIsTooLongForTheAssistantsHeaderLosesFourTokensMore) {
  const int64_t shift = kImageTokens - 1;
  const TemplatedPrompt prompt = In(kWithImage, "tuvwxyz", 6);
  EXPECT_THAT(prompt.text, ElementsAre(TokenRange{10 + shift, 12 + shift}));
  EXPECT_THAT(In(kWithImage, "tuvwxyz", 4).text, IsEmpty());
}

TEST_F(PromptTemplateTest, WithoutATokenizerAPromptIsAsLongAsMayBe) {
  const TemplatedPrompt text = *TokenizeInTemplate(nullptr, kText, "x", 6);
  EXPECT_EQ(text.encoded.size(), 9);
  EXPECT_EQ(text.padded.size(), 9);
  EXPECT_THAT(text.text, ElementsAre(TokenRange{3, 9}));
  const TemplatedPrompt image = *TokenizeInTemplate(nullptr, kWithImage, "x", 12);
  const int64_t shift = kImageTokens - 1;
  EXPECT_EQ(static_cast<int64_t>(image.encoded.size()), 22 + shift);
  EXPECT_EQ(image.image, (TokenRange{5, 5 + kImageTokens}));
  EXPECT_THAT(image.text, ElementsAre(TokenRange{10 + shift, 18 + shift}));
}

TEST_F(PromptTemplateTest, AnImagesPlaceIsTheTemplatesAlone) {
  const absl::Status status =
      TokenizeInTemplate(tokenizer_.get(), kWithImage, "an<image>", 12).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("holds '<image>'"));
}

TEST_F(PromptTemplateTest, TokenizersThatDoNotFitTheTemplateAreRefused) {
  const auto refusal = [](const std::vector<std::string>& special) {
    const auto tokenizer = Tokenizer(special);
    const auto result = TokenizeInTemplate(tokenizer.get(), kWithImage, "x", 64);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(result.status().message());
  };
  EXPECT_THAT(refusal({kSpecial.begin(), kSpecial.end() - 1}), HasSubstr("no token '<image>'"));
  std::vector<std::string> other = kSpecial;
  other[1] = "<|end|>";
  EXPECT_THAT(refusal(other), HasSubstr("no token '<|end_header_id|>'"));
  other = kSpecial;
  other[0] = "<|start|>";  // the header's text is many tokens then
  EXPECT_THAT(refusal(other), HasSubstr("elsewhere than at token 5"));
}

}  // namespace
}  // namespace kino::engine
