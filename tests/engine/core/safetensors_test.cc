#include "engine/core/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>

#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::kino::testing::SafetensorsBytes;
using ::kino::testing::SafetensorsOf;
using ::kino::testing::TempDir;
using ::testing::HasSubstr;

absl::Status OpenBytes(const std::string& bytes) {
  const TempDir folder;
  return SafetensorsFile::Open(folder.Write("x.safetensors", bytes)).status();
}

TEST(SafetensorsTest, ReadsTensorsWhereTheyLie) {
  const TempDir folder;
  const std::string path = folder.Write(
      "x.safetensors",
      SafetensorsOf({{"a", {2, 2}, {1, 2, 3, 4}}, {"b.c", {}, {5}}, {"none", {0, 3}, {}}}));
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), 3u);
  const TensorEntry& a = (*file)->tensors().find("a")->second;
  EXPECT_EQ(a.dtype, DType::kF32);
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(a.bytes, 16);
  float last = 0;  // a tensor need not be aligned in its file
  std::memcpy(&last, a.data + 12, sizeof(last));
  EXPECT_EQ(last, 4.0f);
  EXPECT_EQ((*file)->tensors().find("none")->second.bytes, 0);
}

TEST(SafetensorsTest, ReadsEveryDtypeOfTheFormat) {
  for (const char* name : {"BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "F8_E4M3",
                           "F8_E5M2", "F16", "BF16", "F32", "F64"}) {
    const int64_t size = DTypeSize(*DTypeFromName(name));
    const std::string header = std::string(R"({"t":{"dtype":")") + name +
                               R"(","shape":[2],"data_offsets":[0,)" + std::to_string(2 * size) +
                               "]}}";
    EXPECT_TRUE(
        OpenBytes(SafetensorsBytes(header, std::string(static_cast<size_t>(2 * size), 'x'))).ok())
        << name;
  }
}

TEST(SafetensorsTest, KeepsMetadata) {
  const TempDir folder;
  const auto file = SafetensorsFile::Open(
      folder.Write("x", SafetensorsBytes(R"({"__metadata__":{"format":"pt"}})", "")));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->metadata().find("format")->second, "pt");
}

struct Malformed {
  const char* name;
  std::string bytes;
  const char* message;  // what the error must say
};

std::string Tensor(const std::string& body, size_t data_bytes = 8) {
  return SafetensorsBytes(R"({"t":)" + body + "}", std::string(data_bytes, '\0'));
}

std::vector<Malformed> Corpus() {
  const auto length = [](uint64_t n, const std::string& rest) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &n, 8);
    return bytes + rest;
  };
  const std::string good = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  return {
      {"Empty", "", "0 bytes"},
      {"GitLfsPointer", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 133\n",
       "git lfs pull"},
      {"ShorterThanItsLength", "abc", "3 bytes"},
      {"HeaderLengthZero", length(0, "{}"), "header length 0"},
      {"HeaderLengthPastEnd", length(1000, "{}"), "header length 1000"},
      {"HeaderLengthHuge", length(UINT64_MAX, "{}"), "header length 18446744073709551615"},
      {"NotAnObject", SafetensorsBytes("[1]", ""), "does not begin with '{'"},
      {"NotJson", SafetensorsBytes("{\"a\":", ""), "not JSON"},
      {"NotUtf8", SafetensorsBytes("{\"\xff\xfe\":1}", ""), "not JSON"},
      {"DeeplyNested",
       SafetensorsBytes("{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}", ""),
       "nested too deeply"},
      {"DuplicateTensor",
       SafetensorsBytes("{\"t\":" + good + ",\"t\":" + good + "}", std::string(8, '\0')),
       "'t' stands twice"},
      {"DuplicateKeyInATensor",
       Tensor(R"({"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]})"),
       "'dtype' stands twice"},
      {"TensorIsNotAnObject", Tensor("5"), "'t'"},
      {"NoDtype", Tensor(R"({"shape":[2],"data_offsets":[0,8]})"), "dtype, shape and data_offsets"},
      {"UnknownDtype", Tensor(R"({"dtype":"F7","shape":[2],"data_offsets":[0,8]})"),
       "unknown dtype 'F7'"},
      {"ShapeIsNotAList", Tensor(R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})"), "shape"},
      {"NegativeExtent", Tensor(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"),
       "non-negative"},
      {"FractionalExtent", Tensor(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"),
       "non-negative integer"},
      {"ShapeOverflows",
       Tensor(R"({"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,8]})"),
       "overflows"},
      {"ShapeOverflowsToTheRightSize",
       Tensor(R"({"dtype":"U8","shape":[9223372036854775807,2,5],"data_offsets":[0,8]})"),
       "overflows"},
      {"OffsetsAreNotAPair", Tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})"),
       "not a pair"},
      {"NegativeOffset", Tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})"),
       "non-negative"},
      {"BeginAfterEnd", Tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"),
       "offsets [8, 0)"},
      {"PastTheData", Tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[8,16]})"),
       "offsets [8, 16) in 8 bytes"},
      {"SizeIsNotTheShapes", Tensor(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"),
       "takes 12"},
      {"HoleAtTheStart", Tensor(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})"),
       "leave a hole"},
      {"BytesLeftAtTheEnd", Tensor(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})"),
       "end at byte 4 of 8"},
      {"Overlap",
       SafetensorsBytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                        R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                        std::string(8, '\0')),
       "overlap"},
      {"MetadataIsNotStrings", SafetensorsBytes(R"({"__metadata__":{"a":1}})", ""),
       "__metadata__ 'a'"},
      {"MetadataIsNotAnObject", SafetensorsBytes(R"({"__metadata__":[]})", ""), "__metadata__"},
  };
}

class MalformedSafetensorsTest : public ::testing::TestWithParam<Malformed> {};

TEST_P(MalformedSafetensorsTest, IsRefusedAndSaysWhy) {
  const absl::Status status = OpenBytes(GetParam().bytes);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
  EXPECT_THAT(std::string(status.message()), HasSubstr("x.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(Corpus, MalformedSafetensorsTest, ::testing::ValuesIn(Corpus()),
                         [](const ::testing::TestParamInfo<Malformed>& tested) {
                           return std::string(tested.param.name);
                         });

TEST(SafetensorsTest, EveryTruncationIsRefused) {
  const std::string whole = SafetensorsOf({{"a", {2, 2}, {1, 2, 3, 4}}, {"b", {1}, {5}}});
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(OpenBytes(whole.substr(0, size)).ok()) << size;
}

TEST(SafetensorsTest, EveryFlippedHeaderBitIsHandled) {
  const std::string whole = SafetensorsOf({{"a", {2, 2}, {1, 2, 3, 4}}, {"b", {1}, {5}}});
  for (size_t byte = 0; byte < whole.size() - 20; ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = whole;
      flipped[byte] = static_cast<char>(flipped[byte] ^ 1 << bit);
      // Some flips only rename a tensor; all must end in a status, with the bytes read inside the
      // file (ASan sees to it).
      const absl::Status status = OpenBytes(flipped);
      EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument)
          << byte << " " << status;
    }
  }
}

// Files of one page, so that a read past their end is one past the mapping. Blanks behind the
// header are part of it, so all that is wrong with each is its header's length.
TEST(SafetensorsTest, AHeaderReachesNoFurtherThanItsFile) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::string file(page, ' ');
  std::memcpy(file.data() + 8, "{}", 2);
  const auto open = [&file](uint64_t header_bytes) {
    std::memcpy(file.data(), &header_bytes, 8);
    return OpenBytes(file);
  };
  EXPECT_EQ(open(page - 8), absl::OkStatus());
  for (size_t past = 1; past <= 16; ++past) {
    const absl::Status status = open(page - 8 + past);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << past << " past the end";
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("header length " + std::to_string(page - 8 + past) + " in a file of"))
        << past << " past the end";
  }
  // One less leaves a byte that no tensor takes.
  EXPECT_THAT(std::string(open(page - 9).message()), HasSubstr("end at byte 0 of 1 bytes"));
}

TEST(SafetensorsTest, MissingFileAndFolderAreToldApart) {
  const TempDir folder;
  EXPECT_EQ(SafetensorsFile::Open(folder.path() + "/none").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsFile::Open(folder.path()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kino::engine
