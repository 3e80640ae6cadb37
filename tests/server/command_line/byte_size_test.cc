#include "server/command_line/byte_size.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace kino::command_line {
namespace {

TEST(ByteSize, UnitsAreReadAsWritten) {
  const std::pair<const char*, int64_t> cases[] = {
      {"0", 0},
      {"123", 123},
      {"9223372036854775807", std::numeric_limits<int64_t>::max()},
      {"512KiB", 512 << 10},
      {"64MiB", 64 << 20},
      {"2GiB", int64_t{2} << 30},
      {"1TiB", int64_t{1} << 40},
      {"8G", 8'000'000'000},
      {"8GB", 8'000'000'000},
      {"3K", 3000},
      {"7M", 7'000'000},
      {"1T", 1'000'000'000'000},
      {"5.5GiB", 5905580032},
      {"17.75G", 17'750'000'000},
      {".5KiB", 512},
  };
  for (const auto& [text, bytes] : cases) {
    const auto parsed = ParseByteSize(text);
    EXPECT_TRUE(parsed.ok()) << text << ": " << parsed.status();
    if (!parsed.ok()) continue;
    EXPECT_EQ(*parsed, bytes) << text;
  }
}

TEST(ByteSize, EverythingElseIsRefused) {
  for (const char* text : {"",
                           " ",
                           "GiB",
                           "-1",
                           "-1GiB",
                           "1.5",
                           "1 GiB",
                           "1gib",
                           "1Gi",
                           "1B",
                           "1GiBGiB",
                           "0x10",
                           "1e9",
                           "1e3K",
                           "inf",
                           "infG",
                           "nan",
                           "1.2.3G",
                           "9223372036854775808",
                           "9300000000G"}) {
    const auto parsed = ParseByteSize(text);
    EXPECT_TRUE(absl::IsInvalidArgument(parsed.status())) << "'" << text << "'";
  }
  EXPECT_THAT(std::string(ParseByteSize("1gib").status().message()),
              ::testing::HasSubstr("got '1gib'"));
}

TEST(ByteSize, IsWrittenForPeople) {
  EXPECT_EQ(FormatByteSize(0), "0 B");
  EXPECT_EQ(FormatByteSize(900), "900 B");
  EXPECT_EQ(FormatByteSize(2048), "2.0 KiB");
  EXPECT_EQ(FormatByteSize(3 << 19), "1.5 MiB");
  EXPECT_EQ(FormatByteSize(17 << 20), "17.0 MiB");
  EXPECT_EQ(FormatByteSize(int64_t{5} << 28), "1.25 GiB");
}

}  // namespace
}  // namespace kino::command_line
