#include "engine/memory/spill_file.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "engine/core/memory_counter.h"
#include "engine/core/status_bridge.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

TEST(SpillFileTest, TensorsComeBackAsTheyWere) {
  const std::vector<at::Tensor> tensors = {at::randn({3, 5}), at::full({7}, 9, at::kByte),
                                           at::randn({2, 2}).to(at::kBFloat16),
                                           at::full({}, 2.5, at::kFloat)};
  std::vector<at::Tensor> mapped;
  {
    SpillFile spill;
    for (const at::Tensor& tensor : tensors) spill.Append(tensor);
    mapped = spill.Map();
  }  // the views outlive it
  ASSERT_EQ(mapped.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(mapped[i].scalar_type(), tensors[i].scalar_type());
    EXPECT_TRUE(at::equal(mapped[i], tensors[i])) << i;
  }
}

// As tensors above kWriteBytes are.
TEST(SpillFileTest, TensorsWrittenInManyPiecesComeBackAsTheyWere) {
  const std::vector<at::Tensor> tensors = {at::randn({25, 31}), at::randn({250}), at::randn({1})};
  SpillFile spill(/*write_bytes=*/999);
  for (const at::Tensor& tensor : tensors) spill.Append(tensor);
  const std::vector<at::Tensor> mapped = spill.Map();
  ASSERT_EQ(mapped.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) EXPECT_TRUE(at::equal(mapped[i], tensors[i])) << i;
}

TEST(SpillFileTest, LeavesNoFileAndNoHostMemory) {
  const testing::TempDir folder;
  const char* const before = getenv("TMPDIR");
  const std::string saved = before == nullptr ? "" : before;
  setenv("TMPDIR", folder.path().c_str(), 1);
  InstallMemoryCounter();
  const at::Tensor tensor = at::randn({1 << 18});
  const int64_t live = HostMemoryCount().live_bytes;
  SpillFile spill;
  spill.Append(tensor);
  const std::vector<at::Tensor> mapped = spill.Map();
  EXPECT_EQ(HostMemoryCount().live_bytes, live);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  if (before == nullptr) {
    unsetenv("TMPDIR");
  } else {
    setenv("TMPDIR", saved.c_str(), 1);
  }
}

TEST(SpillFileTest, AFolderThatIsNotThereIsSaid) {
  const char* const before = getenv("TMPDIR");
  const std::string saved = before == nullptr ? "" : before;
  setenv("TMPDIR", "/nonexistent-folder", 1);
  EXPECT_THROW(SpillFile(), StatusError);
  if (before == nullptr) {
    unsetenv("TMPDIR");
  } else {
    setenv("TMPDIR", saved.c_str(), 1);
  }
}

}  // namespace
}  // namespace kino::engine
