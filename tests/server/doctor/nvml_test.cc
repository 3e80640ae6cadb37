#include "server/doctor/nvml.h"

#include <gtest/gtest.h>
#include <stdlib.h>

namespace kino::doctor {
namespace {

TEST(NvmlTest, TellsDriverAndDevices) {
  const Driver driver = AskNvml(FAKE_NVML);
  EXPECT_EQ(driver.version, "580.65.06");
  EXPECT_EQ(driver.cuda, 13000);
  EXPECT_EQ(driver.problem, "");
  ASSERT_EQ(driver.gpus.size(), 2u);
  EXPECT_EQ(driver.gpus[0].name, "Fake H100");
  EXPECT_EQ(driver.gpus[0].memory_bytes, int64_t{80} << 30);
  EXPECT_EQ(driver.gpus[1].free_bytes, int64_t{20} << 30);
}

TEST(NvmlTest, ALibraryThatIsNotThereIsNoDriver) {
  const Driver driver = AskNvml("libthere-is-none.so");
  EXPECT_EQ(driver.version, "");
  EXPECT_EQ(driver.problem, "");
}

TEST(NvmlTest, ADriverThatFailsAndADeviceThatDoesNotAnswerAreProblems) {
  setenv("FAKE_NVML_BROKEN", "init", 1);
  EXPECT_NE(AskNvml(FAKE_NVML).problem, "");
  EXPECT_NE(AskNvml(FAKE_NVML).version, "");
  setenv("FAKE_NVML_BROKEN", "device", 1);
  const Driver driver = AskNvml(FAKE_NVML);
  EXPECT_EQ(driver.problem, "GPU 1 does not answer");
  EXPECT_EQ(driver.gpus.size(), 1u);
  unsetenv("FAKE_NVML_BROKEN");
}

}  // namespace
}  // namespace kino::doctor
