// Who is let in: tokens, their file, lines, places.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "server/digest/sha256.h"
#include "server/frontend/auth/admission.h"
#include "server/frontend/auth/token_table.h"
#include "tests/support/temp_dir.h"

namespace kino::frontend {
namespace {

using digest::Sha256Of;

TEST(TokenTableTest, KnowsTokensByDigestAndFile) {
  kino::testing::TempDir folder;
  const std::string file = folder.Write("tokens", "one\n\n two \n");
  std::filesystem::permissions(file, std::filesystem::perms(0600));
  const auto table = TokenTable::Load({.tokens = {}, .token_file = file});
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(*table->Authenticate("Bearer two"), "default");
  for (const char* wrong : {"", "two", "bearer two", "Bearer ", "Bearer three"}) {
    EXPECT_EQ(table->Authenticate(wrong).status().code(), absl::StatusCode::kUnauthenticated)
        << wrong;
  }
}

TEST(TokenTableTest, FileThatOthersMayTouchInAnyWayIsRefused) {
  kino::testing::TempDir folder;
  const std::string file = folder.Write("tokens", "one\n");
  for (const int mode : {0640, 0620, 0610, 0604, 0602, 0601, 0644, 0666}) {
    std::filesystem::permissions(file, std::filesystem::perms(mode));
    EXPECT_EQ(TokenTable::Load({.tokens = {}, .token_file = file}).status().code(),
              absl::StatusCode::kFailedPrecondition)
        << std::oct << mode;
  }
  for (const int mode : {0600, 0400}) {
    std::filesystem::permissions(file, std::filesystem::perms(mode));
    EXPECT_TRUE(TokenTable::Load({.tokens = {}, .token_file = file}).ok()) << std::oct << mode;
  }
}

TEST(AdmissionTest, TenantsShareALineAndStrangersHaveOneForEachConnection) {
  const auto open = TokenTable::Load({.tokens = {}, .token_file = ""});
  ASSERT_TRUE(open.ok());
  const Admission anyone(*open);
  const auto one = anyone.Admit({.authorization = "", .peer = "ipv4:1"});
  const auto two = anyone.Admit({.authorization = "Bearer x", .peer = "ipv4:2"});
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(one->tenant, "default");
  EXPECT_EQ(two->tenant, "default");
  EXPECT_NE(one->line, two->line);

  const auto closed = TokenTable::Load(
      {.tokens = {{.tenant = "a", .sha256 = Sha256Of("secret")}}, .token_file = ""});
  ASSERT_TRUE(closed.ok());
  const Admission tenants(*closed);
  EXPECT_TRUE(
      absl::IsUnauthenticated(tenants.Admit({.authorization = "", .peer = "ipv4:1"}).status()));
  const auto here = tenants.Admit({.authorization = "Bearer secret", .peer = "ipv4:1"});
  const auto there = tenants.Admit({.authorization = "Bearer secret", .peer = "ipv4:2"});
  ASSERT_TRUE(here.ok() && there.ok());
  EXPECT_EQ(here->tenant, "a");
  EXPECT_EQ(here->line, there->line);
}

TEST(PlacesTest, AreCountedForEachCallerAndForAll) {
  Places places(3, 2);
  std::vector<std::shared_ptr<void>> taken = {places.TryTake("a"), places.TryTake("a")};
  ASSERT_TRUE(taken[0] && taken[1]);
  EXPECT_EQ(places.TryTake("a"), nullptr);
  taken.push_back(places.TryTake("b"));
  ASSERT_TRUE(taken[2]);
  EXPECT_EQ(places.TryTake("c"), nullptr);
  taken.erase(taken.begin());
  taken.push_back(places.TryTake("a"));
  EXPECT_TRUE(taken.back());
  EXPECT_EQ(places.TryTake("a"), nullptr);
  taken.clear();
  // As often as there are places, and once more.
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(places.TryTake("a"));
}

}  // namespace
}  // namespace kino::frontend
