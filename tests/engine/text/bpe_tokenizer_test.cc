// Ids against transformers' own, folder by folder and prompt by prompt.
#include "engine/text/bpe_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/core/json.h"
#include "tests/support/fixture_folder.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<int64_t>;
using Loaded = absl::StatusOr<std::unique_ptr<BpeTokenizer>>;

Loaded Load(const nlohmann::json& folder) {
  return folder["kind"] == "clip" ? BpeTokenizer::LoadClip(folder["folder"])
                                  : BpeTokenizer::LoadByteLevel(folder["folder"]);
}

// How a prompt reads in a failure message: with all but printable ASCII escaped.
std::string Escaped(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', true).substr(0, 300);
}

class BpeTokenizerTest : public ::testing::Test {
 protected:
  // One oracle run serves all tests of both suites.
  static void SetUpTestSuite() {
    if (cases_ != nullptr) return;
    folder_ = std::make_unique<FixtureFolder>();
    ASSERT_NO_FATAL_FAILURE(
        folder_->RunOracle("text/bpe_fixtures.py", "tokenizers " + std::to_string(TestSeed())));
    auto cases = ReadJsonFile(folder_->path() + "/cases.json");
    ASSERT_TRUE(cases.ok()) << cases.status();
    cases_ = std::make_unique<nlohmann::json>(*std::move(cases));
  }
  static std::string Folder(const std::string& name) { return folder_->path() + "/" + name; }
  static std::vector<std::string> Texts() {
    return (*cases_)["texts"].get<std::vector<std::string>>();
  }
  static const nlohmann::json& Case(const std::string& name) {
    for (const auto& folder : (*cases_)["folders"]) {
      if (folder["name"] == name) return folder;
    }
    ADD_FAILURE() << "no folder " << name;
    static const nlohmann::json none;
    return none;
  }

  // Calls check(tokenizer, folder) for each folder; goes on behind one that does not load.
  template <typename Check>
  static void ForEachFolder(const Check& check) {
    ASSERT_GT((*cases_)["folders"].size(), 20u);
    for (const auto& folder : (*cases_)["folders"]) {
      SCOPED_TRACE(folder["name"].get<std::string>());
      const Loaded tokenizer = Load(folder);
      EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
      if (tokenizer.ok()) check(**tokenizer, folder);
    }
  }

  static std::unique_ptr<FixtureFolder> folder_;
  static std::unique_ptr<nlohmann::json> cases_;
};

std::unique_ptr<FixtureFolder> BpeTokenizerTest::folder_;
std::unique_ptr<nlohmann::json> BpeTokenizerTest::cases_;

TEST_F(BpeTokenizerTest, WholePromptsGetTheIdsOfTransformers) {
  const std::vector<std::string> texts = Texts();
  ASSERT_GT(texts.size(), 1200u);
  ForEachFolder([&](const BpeTokenizer& tokenizer, const nlohmann::json& folder) {
    ASSERT_EQ(folder["whole"].size(), texts.size());
    int wrong = 0;
    for (size_t i = 0; i < texts.size() && wrong < 5; ++i) {
      const auto ids = tokenizer.EncodeWhole(texts[i]);
      const auto expected = folder["whole"][i].get<Ids>();
      EXPECT_TRUE(ids.ok()) << ids.status();
      if (ids.ok()) {
        EXPECT_EQ(*ids, expected) << Escaped(texts[i]);
      }
      wrong += !ids.ok() || *ids != expected;
    }
  });
}

TEST_F(BpeTokenizerTest, PaddedAndTruncatedPromptsGetTheIdsAndMasksOfTransformers) {
  const std::vector<std::string> texts = Texts();
  const auto lengths = (*cases_)["lengths"].get<std::vector<int>>();
  ForEachFolder([&](const BpeTokenizer& tokenizer, const nlohmann::json& folder) {
    const auto& padded = folder["padded"];
    EXPECT_GE(padded.size(), 300u);
    int wrong = 0;
    for (size_t i = 0; i < padded.size() && wrong < 5; ++i) {
      const int length = lengths[i % lengths.size()];
      const auto tokens = tokenizer.Encode(texts[i], length);
      EXPECT_TRUE(tokens.ok()) << tokens.status();
      if (!tokens.ok()) {
        ++wrong;
        continue;
      }
      Ids mask(static_cast<size_t>(length), 0);
      std::fill_n(mask.begin(), padded[i][1].get<size_t>(), 1);
      EXPECT_EQ(tokens->ids, padded[i][0].get<Ids>()) << Escaped(texts[i]);
      EXPECT_EQ(tokens->attention_mask, mask) << Escaped(texts[i]);
      wrong += tokens->ids != padded[i][0].get<Ids>() || tokens->attention_mask != mask;
    }
    EXPECT_EQ(tokenizer.pad_id(), folder["pad_id"].get<int64_t>());
  });
}

TEST_F(BpeTokenizerTest, PromptTemplatesOfThePipelinesGetTheIdsOfTransformers) {
  const auto templates = (*cases_)["templates"].get<std::map<std::string, std::string>>();
  ASSERT_GE(templates.size(), 4u);
  ForEachFolder([&](const BpeTokenizer& tokenizer, const nlohmann::json& folder) {
    for (const auto& [name, text] : templates) {
      const auto ids = tokenizer.EncodeWhole(text);
      EXPECT_TRUE(ids.ok()) << ids.status();
      if (ids.ok()) {
        EXPECT_EQ(*ids, folder["templates"][name].get<Ids>()) << name;
      }
    }
  });
  // Special tokens inside of the template are found as such.
  const Loaded llama = Load(Case("llama"));
  ASSERT_TRUE(llama.ok()) << llama.status();
  const auto ids = (*llama)->EncodeWhole(templates.at("pipeline_hunyuan_video_image2video.py"));
  ASSERT_TRUE(ids.ok()) << ids.status();
  const auto count = [&](const char* token) {
    return std::count(ids->begin(), ids->end(), (*llama)->FindToken(token).value_or(-1));
  };
  EXPECT_EQ(ids->front(), (*llama)->FindToken("<|begin_of_text|>"));
  EXPECT_EQ(count("<|end_header_id|>"), 3);
  EXPECT_EQ(count("<|eot_id|>"), 2);
  EXPECT_EQ(count("<image>"), 1);
}

// The longest are 200,000 characters; the suite's time limit would see a loop that is quadratic.
TEST_F(BpeTokenizerTest, LargePromptsGetTheIdsOfTransformers) {
  const auto large = (*cases_)["large"].get<std::vector<std::string>>();
  for (const char* name : {"llama", "clip"}) {
    SCOPED_TRACE(name);
    const Loaded tokenizer = Load(Case(name));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (size_t i = 0; i < large.size(); ++i) {
      const auto ids = (*tokenizer)->EncodeWhole(large[i]);
      EXPECT_TRUE(ids.ok()) << ids.status();
      EXPECT_TRUE(ids.ok() && *ids == Case(name)["large"][i].get<Ids>()) << "large text " << i;
    }
  }
}

TEST_F(BpeTokenizerTest, PromptsOfAMegabyteKeepTheirSurroundings) {
  for (const char* name : {"llama", "clip"}) {
    SCOPED_TRACE(name);
    const Loaded tokenizer = Load(Case(name));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    const auto bare = (*tokenizer)->EncodeWhole("");
    ASSERT_TRUE(bare.ok()) << bare.status();
    for (const std::string unit : {"a", " \n", "e\u0327\u0301", "<image>'"}) {
      std::string text;
      while (text.size() < (1u << 20)) text += unit;
      const auto ids = (*tokenizer)->EncodeWhole(text);
      EXPECT_TRUE(ids.ok()) << Escaped(unit) << ids.status();
      if (!ids.ok()) continue;
      EXPECT_EQ(ids->front(), bare->front());
      EXPECT_EQ(ids->back() == bare->back(), std::string(name) == "clip");
    }
  }
}

TEST_F(BpeTokenizerTest, TokensAreFoundByTheirText) {
  ForEachFolder([&](const BpeTokenizer& tokenizer, const nlohmann::json& folder) {
    for (const auto& [text, id] : folder["tokens"].items()) {
      EXPECT_EQ(tokenizer.FindToken(text).value_or(-1), id.get<int64_t>()) << text;
    }
  });
}

TEST_F(BpeTokenizerTest, EveryIdIsBelowVocabSize) {
  ForEachFolder([&](const BpeTokenizer& tokenizer, const nlohmann::json& folder) {
    int64_t largest = tokenizer.pad_id();
    for (const auto& ids : folder["whole"]) {
      for (const int64_t id : ids.get<Ids>()) largest = std::max(largest, id);
    }
    EXPECT_LT(largest, tokenizer.vocab_size());
  });
}

TEST_F(BpeTokenizerTest, PromptThatIsNotUtf8IsRefusedWithTheByte) {
  for (const char* name : {"llama", "clip"}) {
    const Loaded tokenizer = Load(Case(name));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (const std::string bad :
         {"ab\xff", "ab\xc3", "ab\xc0\x80", "ab\xed\xa0\x80", "ab\xf4\x90\x80\x80", "ab\x80"}) {
      for (const absl::Status& status :
           {(*tokenizer)->Encode(bad, 16).status(), (*tokenizer)->EncodeWhole(bad).status()}) {
        EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
        EXPECT_THAT(std::string(status.message()), HasSubstr("not UTF-8 at its byte 2"));
      }
    }
  }
}

// transformers does not truncate at all below that.
TEST_F(BpeTokenizerTest, LengthOutsideItsRangeIsRefused) {
  const Loaded llama = Load(Case("llama"));
  const Loaded clip = Load(Case("clip"));
  const Loaded bare = Load(Case("lowercase"));
  ASSERT_TRUE(llama.ok() && clip.ok() && bare.ok());
  const struct {
    const BpeTokenizer* tokenizer;
    int shortest;
  } cases[] = {{llama->get(), 1}, {clip->get(), 2}, {bare->get(), 1}};
  for (const auto& c : cases) {
    for (const int length : {-1, 0, c.shortest - 1, (1 << 20) + 1}) {
      const auto status = c.tokenizer->Encode("cat", length).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << length;
      EXPECT_THAT(std::string(status.message()), HasSubstr("max_length is"));
    }
    const auto tokens = c.tokenizer->Encode("cat", c.shortest);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(tokens->attention_mask, Ids(static_cast<size_t>(c.shortest), 1));
  }
}

TEST_F(BpeTokenizerTest, ManyThreadsShareOneTokenizer) {
  const std::vector<std::string> texts = Texts();
  const Loaded tokenizer = Load(Case("flags-normalized"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::vector<Ids> expected;
  for (const auto& ids : Case("flags-normalized")["whole"]) expected.push_back(ids.get<Ids>());
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

// Files made wrong on purpose: copies of good folders with something changed.
class BadBpeFolderTest : public BpeTokenizerTest {
 protected:
  void Copy(const std::string& name) {
    std::filesystem::copy(Folder(name), bad_.path(),
                          std::filesystem::copy_options::recursive |
                              std::filesystem::copy_options::overwrite_existing);
  }
  void EditJson(const std::string& name, const std::string& pointer, const nlohmann::json& value) {
    nlohmann::json file = nlohmann::json::parse(bad_.Read(name));
    file[nlohmann::json::json_pointer(pointer)] = value;
    bad_.Write(name, file.dump());
  }
  static void ExpectRefused(const absl::Status& status, const std::string& file,
                            const std::string& says) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(file));
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
  }
  absl::Status ByteLevel() { return BpeTokenizer::LoadByteLevel(bad_.path()).status(); }
  absl::Status Clip() { return BpeTokenizer::LoadClip(bad_.path()).status(); }

  FixtureFolder bad_;
};

TEST_F(BadBpeFolderTest, FolderWithoutVocabularyIsNotFound) {
  EXPECT_EQ(ByteLevel().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Clip().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Clip().message()), HasSubstr(bad_.path()));
  Copy("clip");
  EXPECT_EQ(ByteLevel().code(), absl::StatusCode::kNotFound);
  std::filesystem::remove(bad_.path() + "/merges.txt");
  EXPECT_EQ(Clip().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Clip().message()), HasSubstr("merges.txt"));
}

TEST_F(BadBpeFolderTest, TokenizerJsonFaultsAreNamed) {
  const auto json = [](const char* text) { return nlohmann::json::parse(text); };
  const char* const kSplit = "/pre_tokenizer/pretokenizers/0";
  const std::string split = kSplit;
  const struct {
    std::string pointer;
    nlohmann::json value;
    const char* says;
  } cases[] = {
      {"/model", 3, "model: no object"},
      {"/model/type", "Unigram", "model.type"},
      {"/model/type", nullptr, "model"},
      {"/model/vocab", 7, "model.vocab"},
      {"/model/vocab", json("{}"), "vocabulary is empty"},
      {"/model/vocab/a", -1, "model.vocab[\"a\"]"},
      {"/model/vocab/a", "1", "model.vocab[\"a\"]"},
      {"/model/vocab/a", 4294967296, "model.vocab[\"a\"]"},
      {"/model/merges", nullptr, "model.merges"},
      {"/model/merges/3", "one", "merges[3]"},
      {"/model/merges/3", "a b c", "merges[3]"},
      {"/model/merges/3", json(R"(["a"])"), "merges[3]"},
      {"/model/merges/3", json(R"(["a", 1])"), "merges[3]"},
      {"/model/merges/3", json(R"(["a", "nothing of it"])"), "merge 3"},
      {"/model/dropout", 0.5, "dropout"},
      {"/model/continuing_subword_prefix", "##", "continuing_subword_prefix"},
      {"/model/byte_fallback", true, "byte_fallback"},
      {"/model/fuse_unk", "no", "fuse_unk"},
      {"/model/ignore_merges", 1, "ignore_merges"},
      {"/model/end_of_word_suffix", 1, "end_of_word_suffix"},
      {"/model/unk_token", 1, "unk_token"},
      {"/normalizer", "NFC", "normalizer"},
      {"/normalizer", json(R"({"type": "NFKC"})"), "NFKC"},
      {"/normalizer", json(R"({"type": "Sequence"})"), "normalizers"},
      {"/normalizer", json(R"({"type": "Sequence", "normalizers": [{"type": "Prepend"}]})"),
       "normalizer.normalizers[0].type is \"Prepend\""},
      {"/normalizer", json(R"({"type": "Replace", "pattern": {"String": "a"}, "content": ""})"),
       "pattern"},
      {"/normalizer", json(R"({"type": "Replace", "pattern": {"Regex": "a"}})"), "content"},
      {"/pre_tokenizer", nullptr, "no ByteLevel"},
      {"/pre_tokenizer", json(R"({"type": "Metaspace"})"), "Metaspace"},
      {"/pre_tokenizer/pretokenizers", 3, "pretokenizers"},
      {"/pre_tokenizer/pretokenizers/1/type", "Whitespace", "pretokenizers[1].type"},
      {"/pre_tokenizer/pretokenizers/1/use_regex", "yes", "use_regex"},
      {"/pre_tokenizer/pretokenizers/1/add_prefix_space", 1, "add_prefix_space"},
      {"/pre_tokenizer/pretokenizers/2", json(R"({"type": "ByteLevel"})"), "behind ByteLevel"},
      {split + "/behavior", "MergedWithNext", "behavior is \"MergedWithNext\""},
      {split + "/invert", "no", "invert"},
      {split + "/pattern", json(R"({"String": " "})"), "pattern"},
      {split + "/pattern/Regex", "a|", "may match nothing"},
      {split + "/pattern/Regex", "(a", "malformed"},
      {split + "/pattern/Regex", "\\w+", "'\\w'"},
      {"/post_processor", json(R"({"type": "Other"})"), "post_processor.type"},
      {"/post_processor", json(R"({"type": "Sequence"})"), "processors"},
      {"/post_processor", json(R"({"type": "TemplateProcessing"})"), "single"},
      {"/post_processor/processors/1/single/1", json(R"({"Sequence": {"id": "B"}})"), "Sequence"},
      {"/post_processor/processors/1/single/2", json(R"({"Sequence": {"id": "A"}})"), "Sequence"},
      {"/post_processor/processors/1/single/0", json(R"({"Other": 1})"), "single[0]"},
      {"/post_processor/processors/1/special_tokens", json("{}"), "<|begin_of_text|>"},
      {"/post_processor/processors/1/special_tokens/<|begin_of_text|>/ids/0", -1, "ids"},
      {"/post_processor/processors/1/special_tokens/<|begin_of_text|>/ids/0", 999999, "999999"},
      {"/post_processor", json(R"({"type": "RobertaProcessing", "sep": ["a", 1], "cls": "a"})"),
       "cls"},
      {"/added_tokens", 3, "added_tokens"},
      {"/added_tokens/0", 3, "added_tokens[0]"},
      {"/added_tokens/0/id", "x", "'id'"},
      {"/added_tokens/0/content", 3, "content"},
      {"/added_tokens/0/lstrip", "yes", "lstrip"},
  };
  Copy("llama");
  const std::string good = bad_.Read("tokenizer.json");
  for (const auto& c : cases) {
    SCOPED_TRACE(c.pointer + " " + c.value.dump());
    bad_.Write("tokenizer.json", good);
    EditJson("tokenizer.json", c.pointer, c.value);
    const bool is_of_folder = std::string(c.says) == "vocabulary is empty" ||
                              std::string(c.says) == "merge 3" || std::string(c.says) == "999999";
    ExpectRefused(ByteLevel(), is_of_folder ? bad_.path() : "tokenizer.json", c.says);
  }
  for (const std::string& bytes : {std::string("[1]"), std::string(), good.substr(0, 5000)}) {
    bad_.Write("tokenizer.json", bytes);
    ExpectRefused(ByteLevel(), "tokenizer.json", "not a JSON object");
    ExpectRefused(Clip(), "tokenizer.json", "not a JSON object");
  }
}

TEST_F(BadBpeFolderTest, IdsThatArePutAroundAPromptAreOfTheVocabulary) {
  Copy("llama");
  const Loaded good = BpeTokenizer::LoadByteLevel(bad_.path());
  ASSERT_TRUE(good.ok()) << good.status();
  const int64_t size = (*good)->vocab_size();
  const std::string id = "/post_processor/processors/1/special_tokens/<|begin_of_text|>/ids/0";
  EditJson("tokenizer.json", id, size);
  ExpectRefused(ByteLevel(), bad_.path(), "adds the id " + std::to_string(size));
  EditJson("tokenizer.json", id, size - 1);
  EXPECT_TRUE(ByteLevel().ok()) << ByteLevel();
}

TEST_F(BadBpeFolderTest, TokensThatAreNeededAreAskedFor) {
  Copy("llama");
  bad_.Write("tokenizer_config.json", "{}");
  ExpectRefused(ByteLevel(), bad_.path(), "no pad_token");
  bad_.Write("tokenizer_config.json", R"({"pad_token": "<pad>", "padding_side": "left"})");
  ExpectRefused(ByteLevel(), "tokenizer_config.json", "padding_side");
  Copy("clip");
  for (const char* name : {"/tokenizer.json", "/special_tokens_map.json"}) {
    std::filesystem::remove(bad_.path() + name);
  }
  EditJson("tokenizer_config.json", "/eos_token", "");
  ExpectRefused(Clip(), bad_.path(), "eos_token");
  // A token that the vocabulary lacks, although it is to stand for bytes.
  Copy("clip-unknown");
  EditJson("tokenizer_config.json", "/unk_token", "<nothing>");
  ExpectRefused(Clip(), bad_.path(), "unk_token '<nothing>' is not in the vocabulary");
}

TEST_F(BadBpeFolderTest, ClipFileFaultsAreNamed) {
  Copy("clip");
  const std::string merges = bad_.Read("merges.txt");
  for (const auto& [line, says] :
       {std::pair("one", "line 2"), std::pair("a b c", "line 2"), std::pair("", "line 2"),
        std::pair("a  b", "line 2"), std::pair("a \xff", "not UTF-8")}) {
    bad_.Write("merges.txt", std::string("#version: 0.2\n") + line + "\na b\n");
    ExpectRefused(Clip(), "merges.txt", says);
  }
  bad_.Write("merges.txt", "#version: 0.2\na qqqqq\n");
  ExpectRefused(Clip(), bad_.path(), "'qqqqq' is not in the vocabulary");
  bad_.Write("merges.txt", merges);
  EditJson("vocab.json", "/a", "x");
  ExpectRefused(Clip(), "vocab.json", "[\"a\"]");
  bad_.Write("vocab.json", "[]");
  ExpectRefused(Clip(), "vocab.json", "not a JSON object");
}

// A line ends in \n, \r\n or with the file.
TEST_F(BadBpeFolderTest, MergesOfOtherLineEndsAreTheSame) {
  Copy("clip");
  std::string merges = bad_.Read("merges.txt");
  while (merges.ends_with('\n')) merges.pop_back();
  std::string other;
  for (const char c : merges) other += c == '\n' ? "\r\n" : std::string(1, c);
  bad_.Write("merges.txt", other);
  const Loaded tokenizer = BpeTokenizer::LoadClip(bad_.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::vector<std::string> texts = Texts();
  for (size_t i = 0; i < texts.size(); i += 5) {
    const auto ids = (*tokenizer)->EncodeWhole(texts[i]);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, Case("clip")["whole"][i].get<Ids>()) << Escaped(texts[i]);
  }
}

}  // namespace
}  // namespace kino::engine
