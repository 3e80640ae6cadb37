#include "engine/core/file_shapes.h"

#include <gtest/gtest.h>

#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

TEST(FileShapesTest, APartOfATensorHasItsOwnRows) {
  const kino::testing::TempDir folder;
  const auto file = TensorFile::Open(folder.Write(
      "file.safetensors", kino::testing::SafetensorsOf(
                              {{"qkv", {5, 2}, std::vector<float>(10)}, {"b", {3}, {1, 2, 3}}})));
  ASSERT_TRUE(file.ok()) << file.status();
  FileShapes shapes(**file,
                    {.name = "x", .map = [](std::string_view name, const TensorEntry& entry) {
                       if (name == "qkv") return SplitRows(entry, 2, {"q", "rest"});
                       return std::vector<MappedTensor>{{.name = std::string(name)}};
                     }});
  EXPECT_EQ(shapes.Extent("q", 0), 2);
  EXPECT_EQ(shapes.Extent("q", 1), 2);
  EXPECT_EQ(shapes.Extent("rest", 0), 3);
  EXPECT_EQ(shapes.Extent("b", 0), 3);
  EXPECT_TRUE(shapes.status().ok()) << shapes.status();
}

TEST(SplitRowsTest, TheLastPartHasTheRest) {
  TensorEntry entry;
  entry.shape = {11, 3};
  const std::vector<MappedTensor> parts = SplitRows(entry, 4, {"q", "k", "rest"});
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[0].name, "q");
  EXPECT_EQ(parts[1].first_row, 4);
  EXPECT_EQ(parts[1].rows, 4);
  EXPECT_EQ(parts[2].name, "rest");
  EXPECT_EQ(parts[2].first_row, 8);
  EXPECT_EQ(parts[2].rows, 3);
}

TEST(SplitRowsTest, ATensorWithoutRowsHasPartsThatAreNotThere) {
  const std::vector<MappedTensor> parts = SplitRows(TensorEntry(), 4, {"q", "k"});
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].rows, 4);
  EXPECT_LT(*parts[1].rows, 0);
}

}  // namespace
}  // namespace kino::engine
