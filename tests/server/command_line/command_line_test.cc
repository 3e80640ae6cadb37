#include "server/command_line/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace kino::command_line {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Values {
  std::string out;
  int threads = 0;
  std::optional<int> height;
  std::optional<double> scale;
  std::optional<uint64_t> seed;
  std::optional<std::string> negative, positional;
  std::vector<std::string> labels;
  bool quiet = false;
  CLI::App app{"Does things.", "tool command"};
  Values() {
    SetUp(app, "Ends so.");
    AddOption(app, "--out", &out, "FILE", "Where the result goes.");
    AddOption(app, "--threads", &threads, "N", "Threads.");
    AddOption(app, "--height", &height, "PX", "Pixels.");
    AddOption(app, "--guidance-scale", &scale, "X", "Guidance.");
    AddOption(app, "--seed", &seed, "N", "Seed.");
    AddOption(app, "--label", &labels, "K=V", "Repeatable.");
    AddOption(app, "--negative", &negative, "TEXT", "What not.");
    app.add_flag("--quiet", quiet, "Says less.");
    AddOption(app, "PROMPT", &positional, "", "What.");
  }
};

TEST(CommandLine, ReadsValuesInBothSpellings) {
  Values v;
  ASSERT_TRUE(Parse(v.app, {"--out", "a.mp4", "--threads=3", "--height", "64", "--guidance-scale",
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
  EXPECT_EQ(v.positional, "prompt");
}

TEST(CommandLine, AbsentOptionalsStayAbsent) {
  Values v;
  ASSERT_TRUE(Parse(v.app, {}).ok());
  EXPECT_FALSE(v.height || v.scale || v.seed || v.quiet);
}

TEST(CommandLine, DoubleDashMakesTheRestPositional) {
  Values v;
  ASSERT_TRUE(Parse(v.app, {"--", "--out"}).ok());
  EXPECT_EQ(v.positional, "--out");
}

TEST(CommandLine, BadArgumentsAreRefusedByName) {
  const struct {
    std::vector<std::string> arguments;
    const char* expected;
  } cases[] = {
      {{"--colour", "red"}, "not expected: --colour"},
      {{"-x"}, "-x"},
      {{"--out"}, "--out"},
      {{"--height", "6x"}, "--height: expected a whole number, got '6x'"},
      {{"--height=99999999999"}, "--height"},
      {{"--guidance-scale", "nan"}, "--guidance-scale: expected a finite number, got 'nan'"},
      {{"--seed=-1"}, "--seed"},
      {{"a", "b"}, "not expected: b"},
  };
  for (const auto& c : cases) {
    Values v;
    const absl::Status status = Parse(v.app, c.arguments).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << c.expected;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.expected));
  }
}

// CLI11 2.1 would read 010 in base 8, take "--negative=" for an option without its value, and drop
// an empty text.
TEST(CommandLine, ValuesAreTakenAsTheyStand) {
  Values v;
  ASSERT_TRUE(Parse(v.app, {"--seed", "010", "--negative=", "--out", "--quiet", "--label=[a,b]",
                            "--threads", "1", "--threads", "2"})
                  .ok());
  EXPECT_EQ(v.seed, 10u);
  EXPECT_EQ(v.negative, "");
  EXPECT_EQ(v.out, "--quiet");
  EXPECT_FALSE(v.quiet);
  EXPECT_THAT(v.labels, ElementsAre("[a,b]"));
  EXPECT_EQ(v.threads, 2);
  ASSERT_TRUE(Parse(v.app, {"--", "--negative="}).ok());
  EXPECT_EQ(v.positional, "--negative=");
}

TEST(CommandLine, HelpListsEveryOption) {
  Values v;
  const absl::StatusOr<std::string> help = Parse(v.app, {"--out", "x", "--help"});
  ASSERT_TRUE(help.ok()) << help.status();
  for (const char* part : {"tool command", "Does things.", "--out FILE", "--guidance-scale X",
                           "--quiet", "Says less.", "PROMPT", "Ends so."}) {
    EXPECT_THAT(*help, HasSubstr(part));
  }
  const absl::StatusOr<std::string> version = Parse(v.app, {"--version"});
  ASSERT_TRUE(version.ok()) << version.status();
  EXPECT_EQ(*version, "tool " KINO_VERSION "\n");
}

TEST(CommandLine, TextIsUtf8AndAFilesNameIsAnyBytes) {
  CLI::App app("", "tool");
  command_line::SetUp(app);
  std::string text, file, argument;
  std::optional<std::string> optional;
  std::vector<std::string> texts, files;
  AddOption(app, "--text", &text, "TEXT", "");
  AddOption(app, "--optional", &optional, "TEXT", "");
  AddOption(app, "--texts", &texts, "TEXT", "");
  AddOption(app, "--file", &file, "FILE", "");
  AddOption(app, "--files", &files, "FILE", "");
  AddOption(app, "FILE", &argument, "", "");
  const std::string bytes = "caf\xe9";
  for (const char* option : {"--text", "--optional", "--texts"}) {
    const absl::Status status = Parse(app, {option, bytes}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << option;
    EXPECT_EQ(std::string(status.message()),
              std::string(option) + ": expected a text in UTF-8, got 'caf\\xe9'");
  }
  ASSERT_TRUE(Parse(app, {"--file", bytes, "--files", bytes, bytes}).ok());
  EXPECT_EQ(file, bytes);
  EXPECT_EQ(files, std::vector<std::string>{bytes});
  EXPECT_EQ(argument, bytes);
  ASSERT_TRUE(Parse(app, {"--text", "caf\xc3\xa9", "--texts", "\xf0\x9f\xa6\x8a"}).ok());
  EXPECT_EQ(text, "caf\xc3\xa9");
}

TEST(CommandLine, ALongHelpIsWrappedAtItsColumn) {
  CLI::App app("", "tool");
  command_line::SetUp(app);
  std::string value, words;
  for (int i = 0; i < 60; ++i) words += "word ";
  AddOption(app, "--value", &value, "TEXT", words);
  std::istringstream lines(app.help());
  int wrapped = 0;
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 100u) << line;
    wrapped += line.find("word") != std::string::npos ? 1 : 0;
  }
  EXPECT_GT(wrapped, 1);
}

}  // namespace
}  // namespace kino::command_line
