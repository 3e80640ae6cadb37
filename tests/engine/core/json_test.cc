#include "engine/core/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

class ConfigReaderTest : public ::testing::Test {
 protected:
  // What a reader says after `read`.
  template <typename Read>
  static absl::Status After(const char* json, const Read& read) {
    const nlohmann::json config = nlohmann::json::parse(json);
    ConfigReader reader(config, "config.json");
    read(reader);
    return reader.status();
  }
};

TEST_F(ConfigReaderTest, ANameThatMeansTheSameIsTaken) {
  const auto read = [](ConfigReader& reader) { reader.Expect("act_fn", {"silu", "swish"}); };
  for (const char* json :
       {R"({})", R"({"act_fn": null})", R"({"act_fn": "silu"})", R"({"act_fn": "swish"})"})
    EXPECT_TRUE(After(json, read).ok()) << json << After(json, read);
  const absl::Status other = After(R"({"act_fn": "relu"})", read);
  EXPECT_EQ(other.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(other.message(), "config.json: 'act_fn' is 'relu', expected 'silu'");
  EXPECT_EQ(After(R"({"act_fn": 1})", read).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ConfigReaderTest, OnlyMultiplesUpToTheLargestAreTaken) {
  const auto of_four = [](std::vector<int> values) {
    return After("{}", [&](ConfigReader& reader) {
      reader.ExpectMultiples("block_out_channels", values, 4, 16);
    });
  };
  EXPECT_TRUE(of_four({4, 16, 8}).ok());
  for (const int wrong : {0, -4, 6, 20}) {
    const absl::Status status = of_four({4, wrong});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << wrong;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat("'block_out_channels' has ", wrong)));
  }
}

TEST_F(ConfigReaderTest, TheFirstFaultIsTold) {
  const absl::Status status = After(R"({"groups": 0, "act_fn": "relu"})", [](ConfigReader& reader) {
    const int groups = reader.Within("groups", 4, 1, 16);
    reader.ExpectMultiples("channels", {4}, groups, 16);  // of which no number is a multiple
    reader.Expect("act_fn", {"silu"});
  });
  EXPECT_THAT(std::string(status.message()), HasSubstr("'groups' is 0"));
}

}  // namespace
}  // namespace kino::engine
