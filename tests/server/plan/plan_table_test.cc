#include "server/plan/plan_table.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

namespace kino::plan {
namespace {

TEST(PlanTable, ShowsEachPlanAndMarksTheChosenOne) {
  v1::MemoryEstimate memory;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"pb(
        device: "cuda:0"
        dtype: "bfloat16"
        weights_bytes: 1610612736
        device_memory_bytes: 1073741824
        plans {
          name: "resident"
          stages { stage: DENOISE weights_bytes: 1048576 activations_bytes: 1048576 }
          stages { stage: DECODE weights_bytes: 1048576 activations_bytes: 2097152 }
          peak_device_bytes: 3145728
          peak_host_bytes: 900
          slowdown: 1
          time_class: "same"
          lossless: true
        }
        plans {
          name: "leaf + VAE tiling"
          plan { vae_tiling {} }
          stages { stage: DENOISE weights_bytes: 1024 workspace_bytes: 1024 }
          stages { stage: DECODE weights_bytes: 1024 }
          peak_device_bytes: 2048
          slowdown: 1.254
          time_class: "<= 1.5x"
          lossless: true
          fits: true
          chosen: true
        }
        plans { name: "nf4" slowdown: 3.5 time_class: "> 3x" fits: true }
      )pb",
      &memory));
  EXPECT_EQ(
      PlanTable(memory),
      "cuda:0, bfloat16, 1.50 GiB of weights; device memory 1.00 GiB, host memory unknown\n"
      "  PLAN                   DEVICE        HOST  PEAK IN       FITS  TIME             FRAMES\n"
      "  resident              3.0 MiB       900 B  decode        no    1.00x (same)     lossless\n"
      "* leaf + VAE tiling     2.0 KiB         0 B  denoise       yes   1.25x (<= 1.5x)  blended "
      "tiles\n"
      "  nf4                       0 B         0 B                yes   3.50x (> 3x)     lossy\n");
}

TEST(PlanTable, EndsWithTheRefusal) {
  v1::MemoryEstimate memory;
  memory.set_refusal("needs 5 GiB");
  EXPECT_THAT(PlanTable(memory), ::testing::EndsWith("does not run: needs 5 GiB\n"));
}

}  // namespace
}  // namespace kino::plan
