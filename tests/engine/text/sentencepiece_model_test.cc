// The wire parser on messages written by hand.
#include "engine/text/sentencepiece_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

std::string Bytes(uint8_t tag, const std::string& content) {
  return std::string(1, static_cast<char>(tag)) + static_cast<char>(content.size()) + content;
}
const std::string kScoreOne = std::string("\x15\x00\x00\x80\x3f", 5);  // field 2, fixed32, 1.0f

TEST(SentencePieceModelTest, ReadsPiecesScoresTypesAndCharsmap) {
  const std::string message = Bytes(0x0a, Bytes(0x0a, "<pad>") + "\x18\x03") +
                              Bytes(0x0a, Bytes(0x0a, "ab") + kScoreOne) + Bytes(0x12, "\x18\x01") +
                              Bytes(0x1a, Bytes(0x0a, "nmt_nfkc") + Bytes(0x12, "map"));
  const auto model = ParseSentencePieceModel(message);
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_EQ(model->pieces.size(), 2u);
  EXPECT_EQ(model->pieces[0].text, "<pad>");
  EXPECT_EQ(model->pieces[0].type, SentencePieceModel::PieceType::kControl);
  EXPECT_EQ(model->pieces[1].text, "ab");
  EXPECT_EQ(model->pieces[1].score, 1.0f);
  EXPECT_EQ(model->pieces[1].type, SentencePieceModel::PieceType::kNormal);
  EXPECT_EQ(model->model_type, SentencePieceModel::ModelType::kUnigram);
  EXPECT_EQ(model->precompiled_charsmap, "map");
}

TEST(SentencePieceModelTest, UnknownFieldsOfEveryWireTypeAreSkipped) {
  const std::string unknown = std::string("\x48\xff\x01", 3) + std::string("\x51", 1) +
                              std::string(8, '\x07') + Bytes(0x5a, "xyz") + std::string("\x65", 1) +
                              std::string(4, '\x07') + std::string("\xf8\x01\x05", 3);
  const auto model =
      ParseSentencePieceModel(unknown + Bytes(0x0a, Bytes(0x0a, "a") + unknown) + unknown);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->pieces[0].text, "a");
}

TEST(SentencePieceModelTest, MalformedMessagesAreRefusedWithTheByte) {
  const std::string good = Bytes(0x0a, Bytes(0x0a, "a"));
  const struct {
    std::string bytes;
    const char* says;
  } cases[] = {
      {"", "no pieces"},
      {good + "\x0a", "byte 6: number runs past"},
      {good + "\x0a\x05", "byte 5: field of 5 bytes, 0 left"},
      {good + "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
       "field of 18446744073709551615 bytes"},
      {good + std::string(11, '\xff'), "more than 10 bytes"},
      {good + std::string("\x00\x00", 2), "field number out of range"},
      {good + "\x0b", "wire type 3"},
      {good + "\x0f", "wire type 7"},
      {good + "\x0d\x01\x02\x03\x04", "pieces has wire type 5, expected 2"},
      {good + std::string("\x08\x01", 2), "pieces has wire type 0, expected 2"},
      {Bytes(0x0a, Bytes(0x12, "aaaa")), "score has wire type 2, expected 5"},
      {Bytes(0x0a, "\x15\x01\x02"), "byte 2: field runs past its message"},
      {Bytes(0x0a,
             "\x0a\x09"
             "a"),
       "byte 2: field of 9 bytes, 1 left"},
      {Bytes(0x0a, std::string("\x18\x00", 2)), "piece 0: type 0"},
      {good + Bytes(0x0a, "\x18\x63"), "piece 1: type 99"},
      {Bytes(0x0a, Bytes(0x0a, "\xff")), "piece 0: text is not UTF-8"},
      {good + Bytes(0x12, "\x18\x09"), "model_type is 9"},
      {good + Bytes(0x1a, "\x10\x01"), "precompiled_charsmap has wire type 0, expected 2"},
  };
  for (const auto& c : cases) {
    const auto status = ParseSentencePieceModel(c.bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says));
  }
}

TEST(SentencePieceModelTest, AGitLfsPointerIsCalledOne) {
  const kino::testing::TempDir folder;
  const std::string path = folder.Write(
      "spiece.model", "version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 791656\n");
  EXPECT_THAT(std::string(ReadSentencePieceModel(path).status().message()),
              HasSubstr("spiece.model' is a git-lfs pointer"));
}

TEST(SentencePieceModelTest, MissingFileIsNotFoundByName) {
  const auto status = ReadSentencePieceModel("/nonexistent/spiece.model").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/spiece.model"));
}

}  // namespace
}  // namespace kino::engine
