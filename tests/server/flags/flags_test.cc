#include "server/flags/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kino::flags {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Values {
  std::string out;
  int threads = 0;
  std::optional<int> height;
  std::optional<double> scale;
  std::optional<uint64_t> seed;
  std::vector<std::string> labels, positional;
  bool quiet = false;
  FlagSet flags{"tool [flags] FILE", "Does things."};
  Values() {
    flags.Add("out", &out, "FILE", "Where the result goes.");
    flags.Add("threads", &threads, "N", "Threads.");
    flags.Add("height", &height, "PX", "Pixels.");
    flags.Add("guidance-scale", &scale, "X", "Guidance.");
    flags.Add("seed", &seed, "N", "Seed.");
    flags.Add("label", &labels, "K=V", "Repeatable.");
    flags.AddSwitch("quiet", &quiet, "Says less.");
    flags.AddPositional(&positional, 1);
  }
};

TEST(FlagSet, ReadsValuesInBothSpellings) {
  Values v;
  ASSERT_TRUE(v.flags
                  .Parse({"--out", "a.mp4", "--threads=3", "--height", "64", "--guidance-scale",
                          "-1.5", "--seed=18446744073709551615", "--label", "a=b", "--label=c=d",
                          "--quiet", "prompt"})
                  .ok());
  EXPECT_EQ(v.out, "a.mp4");
  EXPECT_EQ(v.threads, 3);
  EXPECT_EQ(v.height, 64);
  EXPECT_EQ(v.scale, -1.5);
  EXPECT_EQ(v.seed, 18446744073709551615u);
  EXPECT_THAT(v.labels, ElementsAre("a=b", "c=d"));
  EXPECT_TRUE(v.quiet);
  EXPECT_THAT(v.positional, ElementsAre("prompt"));
}

TEST(FlagSet, AbsentOptionalsStayAbsent) {
  Values v;
  ASSERT_TRUE(v.flags.Parse({}).ok());
  EXPECT_FALSE(v.height || v.scale || v.seed || v.quiet);
}

TEST(FlagSet, DoubleDashMakesTheRestPositional) {
  Values v;
  ASSERT_TRUE(v.flags.Parse({"--", "--out"}).ok());
  EXPECT_THAT(v.positional, ElementsAre("--out"));
}

TEST(FlagSet, BadArgumentsAreRefusedByName) {
  const struct {
    std::vector<std::string> arguments;
    const char* expected;
  } cases[] = {
      {{"--colour", "red"}, "unknown flag '--colour'"},
      {{"-x"}, "unknown flag '-x'"},
      {{"--out"}, "--out needs a value"},
      {{"--quiet=yes"}, "--quiet takes no value"},
      {{"--height", "6x"}, "--height: expected a whole number, got '6x'"},
      {{"--height=99999999999"}, "--height"},
      {{"--guidance-scale", "nan"}, "--guidance-scale: expected a finite number, got 'nan'"},
      {{"--seed=-1"}, "--seed"},
      {{"a", "b"}, "unexpected argument 'b'"},
  };
  for (const auto& c : cases) {
    Values v;
    const absl::Status status = v.flags.Parse(c.arguments);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << c.expected;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.expected));
  }
}

TEST(FlagSet, HelpListsEveryFlag) {
  Values v;
  const std::string help = v.flags.Help();
  for (const char* part : {"Usage: tool [flags] FILE", "Does things.", "--out FILE",
                           "--guidance-scale X", "--quiet", "Says less."}) {
    EXPECT_THAT(help, HasSubstr(part));
  }
}

}  // namespace
}  // namespace kino::flags
