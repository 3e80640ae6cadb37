#include "engine/core/file_shapes.h"

#include <gtest/gtest.h>

namespace kino::engine {
namespace {

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
