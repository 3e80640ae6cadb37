// Each fuzz target with its seeds and with mutations of them, the same in every run. An input that
// ends the process is kept in the temporary folder; its path is the last line.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "engine/core/log.h"
#include "gtest/gtest.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/mutate.h"

namespace kino::fuzz {
namespace {

uint64_t Seed() {
  const char* given = std::getenv("KINO_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : 20261122;
}

// The input being parsed, for the signal handler.
std::string_view current_input;
std::string crash_file;

void KeepInput(int signal) {
  const int fd = open(crash_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  bool kept = fd >= 0 && write(fd, current_input.data(), current_input.size()) ==
                             static_cast<ssize_t>(current_input.size());
  kept = kept && write(STDERR_FILENO, crash_file.data(), crash_file.size()) > 0 &&
         write(STDERR_FILENO, " holds the input\n", 17) > 0;
  // Default handling again, and the signal once more.
  ::signal(signal, SIG_DFL);
  raise(signal);
  _exit(kept ? 1 : 2);
}

class FuzzTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    engine::SetLogSink([](engine::LogLevel, std::string_view) {});
    crash_file =
        (std::filesystem::temp_directory_path() / ("kino-fuzz-crash-" + GetParam())).string();
    for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE}) ::signal(signal, KeepInput);
  }
  void TearDown() override {
    for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE}) ::signal(signal, SIG_DFL);
  }
  bool Run(const std::string& input) {
    current_input = input;
    return FindFuzzTarget(GetParam()).run(input);
  }
};

TEST_P(FuzzTest, SeedsAreAccepted) {
  const std::vector<std::string> seeds = FindFuzzTarget(GetParam()).seeds();
  ASSERT_FALSE(seeds.empty());
  for (size_t i = 0; i < seeds.size(); ++i) EXPECT_TRUE(Run(seeds[i])) << "seed " << i;
}

TEST_P(FuzzTest, MutationsKeepThePromises) {
  const FuzzTarget& target = FindFuzzTarget(GetParam());
  const std::vector<std::string> seeds = target.seeds();
  const uint64_t seed = Seed();
  std::printf("seed: KINO_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));  // NOLINT
  Dice dice(seed);
  int accepted = 0;
  for (int i = 0; i < target.mutations; ++i) accepted += Run(Mutate(seeds, dice)) ? 1 : 0;
  std::printf("%d of %d mutations accepted\n", accepted, target.mutations);
  EXPECT_LT(accepted, target.mutations) << "nothing was refused";
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const FuzzTarget& target : FuzzTargets()) names.push_back(target.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Targets, FuzzTest, ::testing::ValuesIn(Names()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace kino::fuzz
