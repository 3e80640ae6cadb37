#include "engine/core/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "engine/core/tensor_file.h"
#include "tests/support/fixture_folder.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::kino::testing::GgufNumber;
using ::kino::testing::GgufTensor;
using ::kino::testing::GgufText;
using ::kino::testing::GgufWriter;
using ::kino::testing::kGgmlF16;
using ::kino::testing::kGgmlF32;
using ::kino::testing::kGgmlQ4_K;
using ::kino::testing::kGgmlQ8_0;
using ::kino::testing::kGgufArray;
using ::kino::testing::kGgufString;
using ::kino::testing::kGgufUint32;
using ::kino::testing::kGgufUint64;
using ::kino::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

absl::Status OpenBytes(const std::string& bytes) {
  const TempDir folder;
  return GgufFile::Open(folder.Write("x.gguf", bytes)).status();
}

// Two tensors, of which the second begins behind padding.
GgufWriter Small() {
  GgufWriter writer;
  writer.tensors = {{"a", {2, 3}, kGgmlF32, std::string(24, 'a')},
                    {"b", {64, 2}, kGgmlQ8_0, std::string(136, 'b')}};
  return writer;
}

TEST(GgufFileTest, ReadsEveryTypeOfGgufsOwnWriter) {
  const FixtureFolder folder;
  folder.RunOracle("core/gguf_fixtures.py", std::to_string(TestSeed()));
  const auto file = GgufFile::Open(folder.path() + "/all.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  std::istringstream lines(folder.Read("index"));
  size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    std::istringstream words(line);
    std::string name, type;
    words >> name >> type;
    std::vector<int64_t> shape;
    for (int64_t extent; words >> extent;) shape.push_back(extent);
    const auto found = (*file)->tensors().find(name);
    EXPECT_NE(found, (*file)->tensors().end()) << name;
    if (found == (*file)->tensors().end()) continue;
    const TensorEntry& entry = found->second;
    EXPECT_EQ(entry.shape, shape) << name;
    if (entry.block == GgmlType::kNone) {
      EXPECT_EQ(DTypeName(entry.dtype), type) << name;
    } else {
      EXPECT_EQ(GgmlTypeName(entry.block), type) << name;
      EXPECT_EQ(entry.dtype, DType::kU8) << name;
    }
    EXPECT_EQ(
        std::string(reinterpret_cast<const char*>(entry.data), static_cast<size_t>(entry.bytes)),
        folder.Read(name + ".bin"))
        << name;
  }
  EXPECT_EQ(count, 31u);
  EXPECT_EQ((*file)->tensors().size(), count);
  EXPECT_EQ((*file)->metadata().find("general.architecture")->second, "ltxv");
  EXPECT_EQ((*file)->metadata().find("note")->second, "größer");
  const std::map<std::string, int64_t, std::less<>> integers = {
      {"small", 200}, {"negative", -7}, {"large", int64_t{1} << 40}, {"yes", 1}};
  EXPECT_EQ((*file)->integers(), integers);
  EXPECT_EQ((*file)->floats().find("third")->second, double{1.0f / 3});
}

TEST(GgufFileTest, VersionTwoReadsAlike) {
  GgufWriter writer = Small();
  writer.version = 2;
  EXPECT_TRUE(OpenBytes(writer.Bytes()).ok());
}

TEST(GgufFileTest, TheLastTensorNeedsNoPadding) {
  GgufWriter writer = Small();
  EXPECT_EQ(OpenBytes(writer.Bytes()), absl::OkStatus());
  writer.tail = std::string(24, '\0');  // 136 bytes to 160
  EXPECT_EQ(OpenBytes(writer.Bytes()), absl::OkStatus());
}

TEST(GgufFileTest, AlignmentIsTheFilesOwn) {
  GgufWriter writer = Small();
  writer.alignment = 64;
  writer.Add("general.alignment", kGgufUint32, GgufNumber(uint32_t{64}));
  const TempDir folder;
  const auto file = GgufFile::Open(folder.Write("x", writer.Bytes()));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(static_cast<char>(*(*file)->tensors().find("b")->second.data), 'b');
  EXPECT_EQ((*file)->integers().find("general.alignment")->second, 64);
}

TEST(GgufFileTest, EmptyFilesAndTensorsAreRead) {
  EXPECT_EQ(OpenBytes(GgufWriter{}.Bytes()), absl::OkStatus());
  GgufWriter writer;
  writer.tensors = {{"none", {32, 0}, kGgmlQ8_0}, {"scalar", {}, kGgmlF32, "1234"}};
  EXPECT_EQ(OpenBytes(writer.Bytes()), absl::OkStatus());
}

TEST(GgufFileTest, EveryCutOfAFileIsRefused) {
  GgufWriter writer = Small();
  writer.Add("key", kGgufString, GgufText("value"));
  writer.Add("list", kGgufArray,
             GgufNumber(kGgufString) + GgufNumber(uint64_t{1}) + GgufText("item"));
  const std::string whole = writer.Bytes();
  ASSERT_TRUE(OpenBytes(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    const absl::Status status = OpenBytes(whole.substr(0, size));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size;
    EXPECT_THAT(std::string(status.message()), HasSubstr("x.gguf")) << size;
  }
}

struct Malformed {
  const char* name;
  GgufWriter writer;
  std::vector<std::string> says;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

GgufWriter With(void (*change)(GgufWriter&)) {
  GgufWriter writer = Small();
  change(writer);
  return writer;
}

std::vector<Malformed> MalformedFiles() {
  using W = GgufWriter;
  constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
  return {
      {"magic", With([](W& w) { w.magic = "GGML"; }), {"does not begin with 'GGUF'"}},
      {"version 1", With([](W& w) { w.version = 1; }), {"version 1", "2 or 3"}, kUnimplemented},
      {"big-endian", With([](W& w) { w.version = 0x03000000; }), {"big-endian"}, kUnimplemented},
      {"tensor count", With([](W& w) { w.tensor_count = 1'000'000; }), {"1000000 tensors"}},
      {"more tensors than there are",
       With([](W& w) { w.tensor_count = 3; }),
       {"the name of tensor 2"}},
      {"value count", With([](W& w) { w.value_count = UINT64_MAX; }), {"key-value pairs, at most"}},
      {"long key",
       With([](W& w) { w.Add(std::string(2000, 'k'), kGgufUint32, "1234"); }),
       {"2000 bytes"}},
      {"unprintable name", With([](W& w) { w.tensors[0].name = "a\x01"; }), {"byte 1"}},
      {"empty name", With([](W& w) { w.tensors[0].name = ""; }), {"0 bytes, expected 1"}},
      {"a key twice",
       With([](W& w) {
         w.Add("k", kGgufUint32, "1234");
         w.Add("k", kGgufUint32, "1234");
       }),
       {"key 'k' stands twice"}},
      {"unknown value type", With([](W& w) { w.Add("k", 13, "1234"); }), {"key 'k'", "type 13"}},
      {"string past the end",
       With([](W& w) { w.Add("k", kGgufString, GgufNumber(uint64_t{1} << 60)); }),
       {"key 'k' takes 1152921504606846976 bytes"}},
      {"boolean of 2", With([](W& w) { w.Add("k", 7, "\x02"); }), {"key 'k'", "value 2"}},
      {"array past the end",
       With([](W& w) {
         w.Add("k", kGgufArray, GgufNumber(kGgufUint64) + GgufNumber(UINT64_MAX / 8 + 1));
       }),
       {"key 'k' has 2305843009213693952 entries"}},
      {"array of no type",
       With([](W& w) {
         w.Add("k", kGgufArray, GgufNumber(uint32_t{99}) + GgufNumber(uint64_t{0}));
       }),
       {"array of type 99"}},
      {"arrays in arrays",
       With([](W& w) {
         std::string nested;
         for (int i = 0; i < 6; ++i) nested += GgufNumber(kGgufArray) + GgufNumber(uint64_t{1});
         w.Add("k", kGgufArray, nested);
       }),
       {"nested too deeply"}},
      {"alignment 0",
       With([](W& w) { w.Add("general.alignment", kGgufUint32, GgufNumber(uint32_t{0})); }),
       {"general.alignment", "is 0", "power of two"}},
      {"alignment 48",
       With([](W& w) { w.Add("general.alignment", kGgufUint32, GgufNumber(uint32_t{48})); }),
       {"is 48"}},
      {"split file",
       With([](W& w) { w.Add("split.count", kGgufUint32, GgufNumber(uint32_t{2})); }),
       {"one of 2 files"},
       kUnimplemented},
      {"a tensor twice", With([](W& w) { w.tensors[1].name = "a"; }), {"tensor 'a': stands twice"}},
      {"nine dimensions",
       With([](W& w) { w.tensors[0].extents = std::vector<uint64_t>(9, 1); }),
       {"tensor 'a': 9 dimensions"}},
      {"extent past int64",
       With([](W& w) { w.tensors[0].extents = {uint64_t{1} << 63}; }),
       {"tensor 'a': shape [9223372036854775808] overflows"}},
      {"product past int64",
       With([](W& w) {
         w.tensors[0].extents = {uint64_t{1} << 40, uint64_t{1} << 40};
       }),
       {"overflows"}},
      {"type of ggml that Kino lacks",
       With([](W& w) { w.tensors[0].type = 16; }),
       {"tensor 'a': type IQ2_XXS, expected F32"},
       kUnimplemented},
      {"type of no ggml",
       With([](W& w) { w.tensors[0].type = 1000; }),
       {"tensor 'a': type 1000"},
       kUnimplemented},
      {"rows that blocks do not divide",
       With([](W& w) { w.tensors[1].type = kGgmlQ4_K; }),
       {"tensor 'b': shape [2, 64] of type Q4_K", "multiple of 256"}},
      {"a block scalar", With([](W& w) { w.tensors[1].extents = {}; }), {"multiple of 32"}},
      {"offset that is not aligned",
       With([](W& w) { w.tensors[1].offset = 24; }),
       {"tensor 'b': offset 24, expected 32"}},
      {"overlap", With([](W& w) { w.tensors[1].offset = 0; }), {"offset 0, expected 32"}},
      {"hole",
       With([](W& w) { w.tensors[1].offset = 64, w.tail = std::string(64, 'x'); }),
       {"tensor 'b': offset 64, expected 32"}},
      {"outside",
       With([](W& w) { w.tensors[1].offset = UINT64_MAX - 31; }),
       {"tensor 'b': 136 bytes at offset 18446744073709551584"}},
      {"larger than its data",
       With([](W& w) {
         w.tensors[1].extents = {64, 3};
       }),
       {"tensor 'b': 204 bytes at offset 32 of 168"}},
      {"bytes behind the tensors",
       With([](W& w) { w.tail = std::string(64, 'x'); }),
       {"the tensors end at byte 168 of 232"}},
      {"first tensor not at the beginning",
       With([](W& w) { w.tensors[0].offset = 32, w.tensors[1].offset = 64, w.tail = "x"; }),
       {"tensor 'a': offset 32, expected 0"}},
  };
}

TEST(GgufFileTest, MalformedFilesAreRefusedByName) {
  for (const Malformed& file : MalformedFiles()) {
    const absl::Status status = OpenBytes(file.writer.Bytes());
    EXPECT_EQ(status.code(), file.code) << file.name << ": " << status;
    for (const std::string& text : file.says) {
      EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(text), HasSubstr("x.gguf")))
          << file.name;
    }
  }
}

TEST(GgufFileTest, AGitLfsPointerIsCalledOne) {
  const kino::testing::TempDir folder;
  const std::string path = folder.Write(
      "a.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 133\n");
  for (const absl::Status& status :
       {GgufFile::Open(path).status(), TensorFile::Open(path).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("a.gguf' is a git-lfs pointer"));
  }
}

TEST(GgufFileTest, WhatIsNoFileIsRefused) {
  EXPECT_EQ(GgufFile::Open("/nonexistent/x.gguf").status().code(), absl::StatusCode::kNotFound);
  const TempDir folder;
  EXPECT_EQ(GgufFile::Open(folder.path()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(OpenBytes("").message()), HasSubstr("magic takes 4 bytes"));
}

}  // namespace
}  // namespace kino::engine
