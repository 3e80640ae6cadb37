#include "engine/memory/weight_homes.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::kino::testing::SafetensorsOf;
using ::kino::testing::TempDir;

// From the file's float32 through bfloat16, which is computed in, to float8, which is held: 2^20
// elements at a time, here twice and some.
TEST(WeightHomesTest, ACastThroughTheComputeDtypeIsOneCastForAllOfAWeight) {
  constexpr int64_t kRows = 1031, kColumns = 2053;
  static_assert(kRows * kColumns > 2 << 20 && kRows * kColumns < 3 << 20);
  std::vector<float> values(kRows * kColumns);
  // Bytes of float8 of every kind, and no two stretches alike.
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(static_cast<int64_t>(i * 2654435761 % 100003) - 50000) / 300;
  const TempDir folder;
  folder.Write("model.safetensors", SafetensorsOf({{"layer.weight", {kRows, kColumns}, values}}));
  const auto checkpoint = Checkpoint::Open(folder.path(), "");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  WeightSet set(*checkpoint, at::kBFloat16, at::kCPU);
  WeightScope(set, set.AddGroup("layers")).Linear("layer", kColumns, kRows, /*bias=*/false);
  ASSERT_TRUE(set.Finish().ok()) << set.Finish();
  Weight* const weight = set.weights()[0].get();

  WeightHomes homes(set);
  WeightPlan plan;
  plan.storage_dtype = DType::kF8E4M3;
  homes.ChooseForms(plan);
  const SlabLayout layout = SlabLayout::Of({weight});
  ASSERT_EQ(layout.places.size(), 1u);
  ASSERT_EQ(layout.bytes, kRows * kColumns);
  const at::Tensor slab = at::zeros({layout.bytes}, at::TensorOptions(at::kByte));
  homes.Fill(layout.places[0], slab);

  const at::Tensor expected = at::from_blob(values.data(), {kRows * kColumns}, at::kFloat)
                                  .to(at::kBFloat16)
                                  .to(at::kFloat8_e4m3fn)
                                  .view(at::kByte);
  EXPECT_TRUE(at::equal(slab, expected));
  EXPECT_TRUE(at::equal(homes.Parts(*weight)[0].view(at::kByte).flatten(), expected));
}

}  // namespace
}  // namespace kino::engine
