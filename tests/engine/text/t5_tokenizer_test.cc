// Ids against transformers' own, folder by folder and prompt by prompt.
#include "engine/text/t5_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/core/json.h"
#include "tests/support/fixture_folder.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<int64_t>;

class T5TokenizerTest : public ::testing::Test {
 protected:
  // One oracle run serves all tests of both suites.
  static void SetUpTestSuite() {
    if (cases_ != nullptr) return;
    folder_ = std::make_unique<FixtureFolder>();
    std::string arguments = std::to_string(TestSeed());
    const std::string demo = std::string(KINO_SOURCE_DIR) + "/models/demo/tokenizer";
    if (std::filesystem::exists(demo)) arguments += " '" + demo + "'";
    ASSERT_NO_FATAL_FAILURE(folder_->RunOracle("text/tokenizer_fixtures.py", arguments));
    auto cases = ReadJsonFile(folder_->path() + "/cases.json");
    ASSERT_TRUE(cases.ok()) << cases.status();
    cases_ = std::make_unique<nlohmann::json>(*std::move(cases));
  }
  static std::string Folder(const std::string& name) { return folder_->path() + "/" + name; }

  static std::unique_ptr<FixtureFolder> folder_;
  static std::unique_ptr<nlohmann::json> cases_;
};

std::unique_ptr<FixtureFolder> T5TokenizerTest::folder_;
std::unique_ptr<nlohmann::json> T5TokenizerTest::cases_;

// How a prompt reads in a failure message: with all but printable ASCII escaped.
std::string Escaped(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', true).substr(0, 300);
}

TEST_F(T5TokenizerTest, WholePromptsGetTheIdsOfTransformers) {
  const auto texts = (*cases_)["texts"].get<std::vector<std::string>>();
  ASSERT_GT(texts.size(), 2000u);
  for (const auto& folder : (*cases_)["folders"]) {
    const std::string name = folder["name"];
    SCOPED_TRACE(name);
    auto tokenizer = T5Tokenizer::Load(folder["folder"]);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    if (!tokenizer.ok()) continue;
    int wrong = 0;
    for (size_t i = 0; i < texts.size() && wrong < 5; ++i) {
      auto ids = (*tokenizer)->EncodeWhole(texts[i]);
      const auto expected = folder["whole"][i].get<Ids>();
      EXPECT_TRUE(ids.ok()) << ids.status();
      if (ids.ok()) {
        EXPECT_EQ(*ids, expected) << Escaped(texts[i]);
      }
      wrong += !ids.ok() || *ids != expected;
    }
    EXPECT_EQ((*tokenizer)->pad_id(), folder["pad_id"].get<int64_t>());
    EXPECT_EQ((*tokenizer)->eos_id(), folder["eos_id"].get<int64_t>());
  }
}

TEST_F(T5TokenizerTest, PaddedAndTruncatedPromptsGetTheIdsAndMasksOfTransformers) {
  const auto texts = (*cases_)["texts"].get<std::vector<std::string>>();
  const auto lengths = (*cases_)["lengths"].get<std::vector<int>>();
  for (const auto& folder : (*cases_)["folders"]) {
    const std::string name = folder["name"];
    SCOPED_TRACE(name);
    auto tokenizer = T5Tokenizer::Load(folder["folder"]);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    if (!tokenizer.ok()) continue;
    const auto& padded = folder["padded"];
    EXPECT_GT(padded.size(), 100u);
    int wrong = 0;
    for (size_t i = 0; i < padded.size() && wrong < 5; ++i) {
      const int length = lengths[i % lengths.size()];
      auto tokens = (*tokenizer)->Encode(texts[i], length);
      EXPECT_TRUE(tokens.ok()) << tokens.status();
      if (!tokens.ok()) {
        ++wrong;
        continue;
      }
      const std::pair got(tokens->ids, tokens->attention_mask);
      const std::pair expected(padded[i][0].get<Ids>(), padded[i][1].get<Ids>());
      EXPECT_EQ(got, expected) << Escaped(texts[i]);
      wrong += got != expected;
    }
  }
}

TEST_F(T5TokenizerTest, EveryIdIsBelowVocabSize) {
  for (const auto& folder : (*cases_)["folders"]) {
    auto tokenizer = T5Tokenizer::Load(folder["folder"]);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    if (!tokenizer.ok()) continue;
    int64_t largest = 0;
    for (const auto& ids : folder["whole"]) {
      for (const int64_t id : ids.get<Ids>()) largest = std::max(largest, id);
    }
    EXPECT_LT(largest, (*tokenizer)->vocab_size()) << folder["name"];
  }
}

TEST_F(T5TokenizerTest, PromptThatIsNotUtf8IsRefusedWithTheByte) {
  auto tokenizer = T5Tokenizer::Load(Folder("small-model-only"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const std::string bad :
       {"ab\xff", "ab\xc3", "ab\xc0\x80", "ab\xed\xa0\x80", "ab\xf4\x90\x80\x80", "ab\x80",
        "ab\xe0\x9f\xbf", "ab\xf0\x8f\xbf\xbf"}) {
    const auto status = (*tokenizer)->Encode(bad, 16).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("not UTF-8 at its byte 2"));
  }
}

TEST_F(T5TokenizerTest, LengthOutsideItsRangeIsRefused) {
  auto tokenizer = T5Tokenizer::Load(Folder("small-model-only"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const int length : {0, -1, (1 << 20) + 1}) {
    EXPECT_EQ((*tokenizer)->Encode("cat", length).status().code(),
              absl::StatusCode::kInvalidArgument)
        << length;
  }
}

TEST_F(T5TokenizerTest, ManyThreadsShareOneTokenizer) {
  const auto texts = (*cases_)["texts"].get<std::vector<std::string>>();
  const nlohmann::json* wide = nullptr;
  for (const auto& folder : (*cases_)["folders"]) {
    if (folder["name"] == "wide-with-decoder") wide = &folder;
  }
  ASSERT_NE(wide, nullptr);
  std::vector<Ids> expected;
  for (const auto& ids : (*wide)["whole"]) expected.push_back(ids.get<Ids>());
  auto tokenizer = T5Tokenizer::Load((*wide)["folder"]);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < texts.size(); i += 2) {
        const auto ids = (*tokenizer)->EncodeWhole(texts[i]);
        wrong[t] += !ids.ok() || *ids != expected[i];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ::testing::Each(0));
}

// Files made wrong on purpose. `edit` changes a good tokenizer folder; Load must say what `says`
// says.
class BadFolderTest : public T5TokenizerTest {
 protected:
  void SetUp() override {
    std::filesystem::copy(Folder("wide-saved-by-5"), bad_.path(),
                          std::filesystem::copy_options::recursive);
  }
  void UseModelOnly() { std::filesystem::remove(bad_.path() + "/tokenizer.json"); }

  void EditJson(const std::string& name, const std::string& pointer, const nlohmann::json& value) {
    nlohmann::json file = nlohmann::json::parse(bad_.Read(name));
    file[nlohmann::json::json_pointer(pointer)] = value;
    bad_.Write(name, file.dump());
  }

  void ExpectRefused(const std::string& file, const std::string& says) {
    const auto status = T5Tokenizer::Load(bad_.path()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(file));
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
  }

  FixtureFolder bad_;
};

TEST_F(BadFolderTest, FolderWithoutVocabularyIsNotFound) {
  std::filesystem::remove(bad_.path() + "/tokenizer.json");
  std::filesystem::remove(bad_.path() + "/spiece.model");
  const auto status = T5Tokenizer::Load(bad_.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(bad_.path()));
  EXPECT_EQ(T5Tokenizer::Load("/nonexistent").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(BadFolderTest, TokenizerJsonFaultsAreNamed) {
  const struct {
    const char* pointer;
    nlohmann::json value;
    const char* says;
  } cases[] = {
      {"/model/type", "BPE", "model.type"},
      {"/model/vocab", nlohmann::json::parse(R"([["a"]])"), "model.vocab[0]"},
      {"/model/vocab", 7, "model.vocab"},
      {"/model/vocab", nlohmann::json::array(), "vocabulary of 0 pieces"},
      {"/model/vocab/5", "x", "model.vocab[5]"},
      {"/model/vocab/5", {"x", "y"}, "model.vocab[5]"},
      {"/model/vocab/5", {1, 2}, "model.vocab[5]"},
      {"/normalizer/precompiled_charsmap", "!!!", "not base64"},
      {"/normalizer/precompiled_charsmap", nullptr, "not base64"},
      {"/normalizer/precompiled_charsmap", "", "charsmap of 0 bytes"},
      {"/normalizer/precompiled_charsmap", "/////w==", "charsmap trie"},
      {"/added_tokens", 3, "added_tokens"},
      {"/added_tokens/0", 3, "added_tokens[0]"},
      {"/added_tokens/0/id", "x", "'id'"},
      {"/added_tokens/0/content", 3, "content"},
      {"/added_tokens/0/lstrip", "yes", "lstrip"},
  };
  const std::string good = bad_.Read("tokenizer.json");
  for (const auto& c : cases) {
    SCOPED_TRACE(c.pointer);
    bad_.Write("tokenizer.json", good);
    EditJson("tokenizer.json", c.pointer, c.value);
    ExpectRefused("tokenizer.json", c.says);
  }
  bad_.Write("tokenizer.json", "[1]");
  ExpectRefused("tokenizer.json", "not a JSON object");
  bad_.Write("tokenizer.json", good.substr(0, good.size() / 2));
  ExpectRefused("tokenizer.json", "not a JSON object");
  const char* const pointer =
      "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 133\n";
  bad_.Write("tokenizer.json", pointer);
  ExpectRefused("tokenizer.json", "git-lfs pointer");
  std::filesystem::remove(bad_.path() + "/tokenizer.json");
  bad_.Write("spiece.model", pointer);
  ExpectRefused("spiece.model", "git-lfs pointer");
}

TEST_F(BadFolderTest, ConfigFaultsAreNamed) {
  const struct {
    const char* key;
    nlohmann::json value;
    const char* says;
  } cases[] = {
      {"extra_ids", -1, "extra_ids is -1"},
      {"extra_ids", 1000000000, "extra_ids"},
      {"extra_ids", "many", "extra_ids"},
      {"padding_side", "left", "padding_side"},
      {"truncation_side", "left", "truncation_side"},
      {"fast_tokenizer_files", {"tokenizer.4.json"}, "fast_tokenizer_files"},
      {"extra_special_tokens", 3, "extra_special_tokens"},
      {"extra_special_tokens", {3}, "extra_special_tokens"},
      {"added_tokens_decoder", {3}, "added_tokens_decoder"},
      {"added_tokens_decoder", {{"x", {{"content", "y"}}}}, "added_tokens_decoder['x']"},
      {"added_tokens_decoder", {{"1", "y"}}, "added_tokens_decoder['1']"},
      {"pad_token", 3, "pad_token"},
      {"split_special_tokens", "no", "split_special_tokens"},
  };
  const std::string good = bad_.Read("tokenizer_config.json");
  for (const auto& c : cases) {
    SCOPED_TRACE(std::string(c.key) + " " + c.value.dump());
    bad_.Write("tokenizer_config.json", good);
    EditJson("tokenizer_config.json", std::string("/") + c.key, c.value);
    ExpectRefused("tokenizer_config.json", c.says);
  }
  bad_.Write("tokenizer_config.json", "{");
  ExpectRefused("tokenizer_config.json", "not a JSON object");
}

TEST_F(BadFolderTest, TokensThatNormalisationMakesEqualAreRefused) {
  EditJson("tokenizer_config.json", "/added_tokens_decoder",
           {{"7", {{"content", "<A>"}, {"normalized", true}}},
            {"8", {{"content", "\uff1cA\uff1e"}, {"normalized", true}}}});
  ExpectRefused(bad_.path(), "are the same text after normalisation");
  EditJson("tokenizer_config.json", "/added_tokens_decoder",
           {{"7", {{"content", "\x01"}, {"normalized", true}}}});
  ExpectRefused(bad_.path(), "nothing is left of it");
}

TEST_F(BadFolderTest, NoTruncationOfTheModelFileIsAcceptedAsWhole) {
  UseModelOnly();
  const std::string good = bad_.Read("spiece.model");
  int refused = 0;
  // Every length near the ends, and a spread between them. A cut between two fields leaves a
  // well-formed but shorter file, which protobuf accepts as well; a cut anywhere else must be
  // refused by name.
  for (size_t size = 0; size < good.size();
       size += (size < 300 || size + 300 > good.size()) ? 1 : 997) {
    bad_.Write("spiece.model", good.substr(0, size));
    const auto loaded = T5Tokenizer::Load(bad_.path());
    if (loaded.ok()) {
      EXPECT_TRUE((*loaded)->EncodeWhole("a red star").ok());
      continue;
    }
    ++refused;
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument)
        << size << loaded.status();
    EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("spiece.model")) << size;
  }
  EXPECT_GT(refused, 300);
}

TEST_F(BadFolderTest, FlippedBytesAreRefusedOrGiveAWorkingTokenizer) {
  UseModelOnly();
  const std::string good = bad_.Read("spiece.model");
  const auto texts = (*cases_)["texts"].get<std::vector<std::string>>();
  uint64_t state = TestSeed();
  for (int round = 0; round < 150; ++round) {
    std::string bytes = good;
    for (int flip = 0; flip <= round % 8; ++flip) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      bytes[(state >> 33) % bytes.size()] ^= static_cast<char>(1u << (state >> 60 & 7));
    }
    bad_.Write("spiece.model", bytes);
    const auto loaded = T5Tokenizer::Load(bad_.path());
    if (!loaded.ok()) {
      EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument) << loaded.status();
      continue;
    }
    for (size_t i = 0; i < texts.size(); i += 7) {
      const auto ids = (*loaded)->EncodeWhole(texts[i]);
      ASSERT_TRUE(ids.ok()) << ids.status();
      for (const int64_t id : *ids) ASSERT_LT(id, (*loaded)->vocab_size());
    }
  }
}

}  // namespace
}  // namespace kino::engine
