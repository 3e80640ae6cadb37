#include "engine/core/file_shapes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::testing::ElementsAre;

TEST(FileShapesTest, APartOfATensorHasItsOwnRows) {
  const kino::testing::TempDir folder;
  const auto file = TensorFile::Open(
      folder.Write("file.safetensors",
                   kino::testing::SafetensorsOf(
                       {{"qkv.weight", {5, 2}, std::vector<float>(10)}, {"b", {3}, {1, 2, 3}}})));
  ASSERT_TRUE(file.ok()) << file.status();
  FileShapes shapes(**file,
                    {.name = "x", .map = [](std::string_view name, const TensorEntry& entry) {
                       return SplitFused(std::string(name), entry, 2, {{"qkv.", {"q.", "rest."}}});
                     }});
  EXPECT_EQ(shapes.Extent("q.weight", 0), 2);
  EXPECT_EQ(shapes.Extent("q.weight", 1), 2);
  EXPECT_EQ(shapes.Extent("rest.weight", 0), 3);
  EXPECT_EQ(shapes.Extent("b", 0), 3);
  EXPECT_TRUE(shapes.status().ok()) << shapes.status();
}

const std::vector<FusedLayer> kLayers = {{"qk.", {"q.", "k."}}, {"linear1.", {"q.", "k.", "mlp."}}};

// "name: first_row + rows" each; "name" alone of a tensor as it is.
std::vector<std::string> Split(const std::string& name, std::optional<int64_t> rows,
                               std::vector<int64_t> shape = {11, 3}) {
  TensorEntry entry;
  entry.shape = std::move(shape);
  std::vector<std::string> parts;
  for (const MappedTensor& part : SplitFused(name, entry, rows, kLayers)) {
    parts.push_back(!part.rows ? part.name
                               : absl::StrCat(part.name, ": ", part.first_row, " + ", *part.rows));
  }
  return parts;
}

TEST(SplitFusedTest, TheLastPartHasTheRest) {
  EXPECT_THAT(Split("a.0.linear1.weight", 4),
              ElementsAre("a.0.q.weight: 0 + 4", "a.0.k.weight: 4 + 4", "a.0.mlp.weight: 8 + 3"));
  EXPECT_THAT(Split("a.qk.bias", 4), ElementsAre("a.q.bias: 0 + 4", "a.k.bias: 4 + 7"));
}

TEST(SplitFusedTest, WithoutRowsThePartsAreOfOneSize) {
  EXPECT_THAT(Split("qk.weight", std::nullopt, {12, 3}),
              ElementsAre("q.weight: 0 + 6", "k.weight: 6 + 6"));
}

TEST(SplitFusedTest, OnlyAFusedLayersWeightAndBiasAreSplit) {
  for (const char* name : {"a.q.weight", "a.qk.scale_weight", "a.qk.norm.weight", "scaled_fp8"})
    EXPECT_THAT(Split(name, 4), ElementsAre(name));
}

TEST(SplitFusedTest, ATensorWithoutRowsHasPartsThatAreNotThere) {
  EXPECT_THAT(Split("qk.weight", 4, {}), ElementsAre("q.weight: 0 + 4", "k.weight: 4 + -4"));
}

TEST(PrefixOfTest, StandsBeforeAllOfTheNames) {
  const kino::testing::TempDir folder;
  const auto file = TensorFile::Open(
      folder.Write("file.safetensors",
                   kino::testing::SafetensorsOf(
                       {{"a.x", {1}, {1}}, {"model.b.x", {1}, {1}}, {"model.b.y", {1}, {1}}})));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(PrefixOf(**file, {"x", "y"}), "model.b.");
  EXPECT_EQ(PrefixOf(**file, {"x"}), "a.");
  EXPECT_EQ(PrefixOf(**file, {"a.x"}), "");
  EXPECT_EQ(PrefixOf(**file, {"x", "z"}), std::nullopt);
}

}  // namespace
}  // namespace kino::engine
