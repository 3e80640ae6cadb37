#include "engine/media/npy.h"

#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/media/media_fixtures.h"

namespace kino::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A file of version 1.0 with `header` as its dict, unpadded.
std::string Npy(const std::string& header, const std::string& data, char version = 1) {
  std::string length(version == 1 ? 2 : 4, '\0');
  length[0] = static_cast<char>(header.size() & 0xFF);
  length[1] = static_cast<char>(header.size() >> 8);
  return std::string("\x93NUMPY") + version + '\0' + length + header + data;
}

constexpr char kGoodHeader[] = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }\n";

TEST(NpyTest, ReadsWhatNumpyWrites) {
  const ScratchFolder scratch;
  RunCommand(
      std::string(KINO_PYTHON) +
      " -c \"import numpy as np, sys; d = sys.argv[1] + '/'\n"
      "np.save(d + 'u1', np.arange(24, dtype=np.uint8).reshape(2, 3, 4))\n"
      "np.save(d + 'f4', np.array([1.5, -2, 3e9], np.float32))\n"
      "np.save(d + 'scalar', np.float32(7))\n"
      "np.lib.format.write_array(open(d + 'v2.npy', 'wb'), np.ones((1, 2), np.float32), (2, 0))\n"
      "np.save(d + 'empty', np.zeros((0, 4, 4, 3), np.float32))\n"
      "np.save(d + 'f8', np.zeros(3))\n"
      "np.save(d + 'big', np.zeros(3, '>f4'))\n"
      "np.save(d + 'fortran', np.asfortranarray(np.zeros((2, 3), np.float32)))\" " +
      scratch.folder());
  const auto u1 = ReadNpy(scratch.path("u1.npy"));
  ASSERT_TRUE(u1.ok()) << u1.status();
  EXPECT_EQ(u1->type, NpyType::kUint8);
  EXPECT_THAT(u1->shape, ElementsAre(2, 3, 4));
  EXPECT_EQ(u1->data[23], 23);
  const auto f4 = ReadNpy(scratch.path("f4.npy"));
  ASSERT_TRUE(f4.ok()) << f4.status();
  EXPECT_THAT(f4->shape, ElementsAre(3));
  float values[3];
  std::memcpy(values, f4->data.data(), sizeof(values));
  EXPECT_THAT(values, ElementsAre(1.5f, -2.0f, 3e9f));
  EXPECT_EQ(ReadNpy(scratch.path("scalar.npy"))->element_count(), 1);
  EXPECT_THAT(ReadNpy(scratch.path("v2.npy"))->shape, ElementsAre(1, 2));
  EXPECT_EQ(ReadNpy(scratch.path("empty.npy"))->element_count(), 0);
  for (const auto& [file, word] :
       {std::pair("f8", "'<f8'"), std::pair("big", "'>f4'"), std::pair("fortran", "Fortran")}) {
    const auto got = ReadNpy(scratch.path(file) + ".npy");
    EXPECT_EQ(got.status().code(), absl::StatusCode::kInvalidArgument) << file;
    EXPECT_THAT(std::string(got.status().message()), HasSubstr(word));
  }
  EXPECT_EQ(ReadNpy(scratch.path("absent")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadNpy(scratch.path("u1.npy"), 50).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(NpyTest, MalformedFilesAreInvalid) {
  ASSERT_TRUE(ParseNpy(Npy(kGoodHeader, "abcdef")).ok());
  ASSERT_TRUE(ParseNpy(Npy(kGoodHeader, "abcdef", 2)).ok());
  const std::string good = Npy(kGoodHeader, "abcdef");
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(ParseNpy(good.substr(0, size)).status().code(), absl::StatusCode::kInvalidArgument)
        << size;
  }
  const std::vector<std::string> bad = {
      Npy(kGoodHeader, "abcdefg"),
      Npy(kGoodHeader, "abcdef", 3),
      Npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2 3), }", "abcdef"),
      Npy("{'descr': '|u1', 'fortran_order': False, 'shape': (6), }", "abcdef"),
      Npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-6,), }", "abcdef"),
      Npy("{'descr': '|u1', 'fortran_order': 0, 'shape': (6,), }", "abcdef"),
      Npy("{'descr': '|O', 'fortran_order': False, 'shape': (6,), }", "abcdef"),
      Npy("{'descr': '|u1', 'shape': (6,), }", "abcdef"),
      Npy("{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (6,), }", "abcdef"),
      Npy("{'descr': '|u1', 'fortran_order': False, 'shape': (6,), 'x': 1}", "abcdef"),
      Npy("{'descr': '|u1', 'fortran_order': False, 'shape': (6,), } x", "abcdef"),
      Npy("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,), }", ""),
      Npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387905,), }", "abcd"),
      Npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296),"
          " }",
          ""),
      "\x93NUMPZ" + good.substr(6)};
  for (const std::string& bytes : bad) {
    EXPECT_EQ(ParseNpy(bytes).status().code(), absl::StatusCode::kInvalidArgument) << bytes;
  }
}

TEST(NpyTest, WrittenFramesAreReadByNumpy) {
  const ScratchFolder scratch;
  const std::string path = scratch.path("frames.npy");
  auto writer = NpyWriter::Create(path, 2, 3);
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (int t = 0; t < 5; ++t) {
    const std::vector<float> frame(18, static_cast<float>(t) / 4);
    ASSERT_TRUE((*writer)->AddFrame(frame.data()).ok());
  }
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_EQ(RunCommand(std::string(KINO_PYTHON) +
                       " -c \"import numpy as np, sys; a = np.load(sys.argv[1])\n"
                       "print(a.shape, a.dtype, a[:, 1, 2, 0].tolist())\" " +
                       path),
            "(5, 2, 3, 3) float32 [0.0, 0.25, 0.5, 0.75, 1.0]\n");
  const auto back = ReadNpy(path);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_THAT(back->shape, ElementsAre(5, 2, 3, 3));
}

// Files are read 64 KiB at a time: here in four pieces, the last smaller.
TEST(NpyTest, AFileOfManyPiecesIsReadWhole) {
  const ScratchFolder scratch;
  const std::string path = scratch.path("large.npy");
  constexpr int kHeight = 64, kWidth = 90, kFrames = 3;
  std::vector<float> values(3 * kHeight * kWidth * kFrames);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  ASSERT_GT(values.size() * sizeof(float), 3u << 16);
  auto writer = NpyWriter::Create(path, kHeight, kWidth);
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (int t = 0; t < kFrames; ++t)
    ASSERT_TRUE((*writer)->AddFrame(values.data() + 3 * kHeight * kWidth * t).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  const auto back = ReadNpy(path);
  ASSERT_TRUE(back.ok()) << back.status();
  ASSERT_EQ(back->data.size(), values.size() * sizeof(float));
  EXPECT_EQ(std::memcmp(back->data.data(), values.data(), back->data.size()), 0);
}

TEST(NpyTest, UnwritablePlacesAreNamed) {
  EXPECT_EQ(NpyWriter::Create("/no-such-folder/x.npy", 2, 2).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(NpyWriter::Create("/dev/null", 0, 2).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(NpyTest, FullDiskIsResourceExhausted) {
  auto writer = NpyWriter::Create("/dev/full", 64, 64);
  absl::Status status = writer.status();
  const std::vector<float> frame(64 * 64 * 3);
  for (int i = 0; i < 4 && status.ok(); ++i) status = (*writer)->AddFrame(frame.data());
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

}  // namespace
}  // namespace kino::engine
