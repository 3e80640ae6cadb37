// Who is let in: tokens and their file, certificates, roles, rates, lines, places.
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/config/config.h"

#include "server/digest/sha256.h"
#include "server/frontend/auth/admission.h"
#include "server/frontend/auth/credentials.h"
#include "tests/support/fake_clock.h"
#include "tests/support/temp_dir.h"

namespace kino::frontend {
namespace {

using digest::Sha256Of;

using config::Role;

constexpr char kSecret[] = "Bearer secret";

config::AuthConfig OneToken() {
  return {.tokens = {{.tenant = "a", .sha256 = Sha256Of("secret")}},
          .tokens_file = "",
          .certificates = {}};
}

// What a tokens' file says, one line each.
std::string TokensFile(const std::vector<std::pair<std::string, std::string>>& tokens) {
  std::string text = "tokens:\n";
  for (const auto& [token, more] : tokens)
    absl::StrAppend(&text, "  - {sha256: ", Sha256Of(token), more, "}\n");
  return text;
}

TEST(CredentialsTest, KnowTokensByDigest) {
  const auto credentials = Credentials::Load(OneToken());
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  EXPECT_TRUE(credentials->is_required());
  const auto identity = credentials->Identify({.authorization = kSecret});
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->tenant, "a");
  EXPECT_EQ(identity->role, Role::kUse);
  for (const char* wrong :
       {"", "secret", "bearer secret", "Bearer ", "Bearer secre", "Bearer secret "})
    EXPECT_TRUE(absl::IsUnauthenticated(credentials->Identify({.authorization = wrong}).status()))
        << wrong;
}

TEST(CredentialsTest, EverybodyOperatesWhereNothingIsConfigured) {
  const auto credentials = Credentials::Load({});
  ASSERT_TRUE(credentials.ok());
  EXPECT_FALSE(credentials->is_required());
  const auto identity = credentials->Identify({.authorization = "Bearer x"});
  ASSERT_TRUE(identity.ok());
  EXPECT_EQ(identity->tenant, "default");
  EXPECT_EQ(identity->role, Role::kOperate);
}

TEST(CredentialsTest, ATokenGoesBeforeACertificate) {
  config::AuthConfig auth = OneToken();
  auth.certificates = {{.name = "studio.example", .tenant = "studio", .role = Role::kOperate}};
  const auto credentials = Credentials::Load(auth);
  ASSERT_TRUE(credentials.ok());
  const auto tenant = [&](const CallOrigin& origin) {
    const auto identity = credentials->Identify(origin);
    return identity.ok() ? identity->tenant : absl::StatusCodeToString(identity.status().code());
  };
  const std::vector<std::string> names = {"other.example", "studio.example"};
  EXPECT_EQ(tenant({.certificate_names = names}), "studio");
  EXPECT_EQ(tenant({.certificate_names = {"other.example"}}), "UNAUTHENTICATED");
  EXPECT_EQ(tenant({.certificate_names = {"studio.example.other"}}), "UNAUTHENTICATED");
  EXPECT_EQ(tenant({.authorization = kSecret, .certificate_names = names}), "a");
  EXPECT_EQ(tenant({.authorization = "Bearer x", .certificate_names = names}), "UNAUTHENTICATED");
}

TEST(CredentialsTest, TheFilesTokensAreAddedToTheOthers) {
  const kino::testing::TempDir folder;
  config::AuthConfig auth = OneToken();
  auth.tokens_file = folder.Write(
      "tokens.yaml", TokensFile({{"one", ", tenant: a"}, {"two", ", tenant: b, role: operate"}}));
  const auto credentials = Credentials::Load(auth);
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  for (const auto& [token, tenant] :
       {std::pair{kSecret, "a"}, {"Bearer one", "a"}, {"Bearer two", "b"}})
    EXPECT_EQ(credentials->Identify({.authorization = token})->tenant, tenant) << token;
  EXPECT_EQ(credentials->Identify({.authorization = "Bearer two"})->role, Role::kOperate);
}

TEST(CredentialsTest, FilesThatCannotBeReadAreRefused) {
  const kino::testing::TempDir folder;
  config::AuthConfig auth = OneToken();
  for (const std::string& text :
       {std::string("tokens: 3\n"), std::string("tokens: [{tenant: a}]\n"),
        std::string("tokens: [\n"), TokensFile({{"one", ", owner: a"}}),
        TokensFile({{"one", ", role: own"}}),
        // With the one that is in the configuration three of one tenant and role.
        TokensFile({{"one", ", tenant: a"}, {"two", ", tenant: a"}})}) {
    auth.tokens_file = folder.Write("tokens.yaml", text);
    EXPECT_TRUE(absl::IsInvalidArgument(Credentials::Load(auth).status())) << text;
  }
  auth.tokens_file = folder.path() + "/absent";
  EXPECT_TRUE(absl::IsInvalidArgument(Credentials::Load(auth).status()));
}

class AdmissionTest : public ::testing::Test {
 protected:
  std::unique_ptr<Admission> Make(const config::AuthConfig& auth, int64_t per_second = 0) {
    config::LimitsConfig limits;
    limits.max_tenant_requests_per_second = per_second;
    auto admission = Admission::Make(auth, limits, clock_);
    EXPECT_TRUE(admission.ok()) << admission.status();
    return admission.ok() ? *std::move(admission) : nullptr;
  }
  scheduler::FakeClock clock_;
};

TEST_F(AdmissionTest, TenantsShareALineAndStrangersHaveOneForEachConnection) {
  const auto anyone = Make({});
  const auto one = anyone->Admit({.authorization = "", .peer = "ipv4:1"});
  const auto two = anyone->Admit({.authorization = "Bearer x", .peer = "ipv4:2"});
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(one->tenant, "default");
  EXPECT_EQ(two->tenant, "default");
  EXPECT_NE(one->line, two->line);

  const auto tenants = Make(OneToken());
  EXPECT_TRUE(
      absl::IsUnauthenticated(tenants->Admit({.authorization = "", .peer = "ipv4:1"}).status()));
  const auto here = tenants->Admit({.authorization = kSecret, .peer = "ipv4:1"});
  const auto there = tenants->Admit({.authorization = kSecret, .peer = "ipv4:2"});
  ASSERT_TRUE(here.ok() && there.ok());
  EXPECT_EQ(here->tenant, "a");
  EXPECT_EQ(here->line, there->line);
}

TEST_F(AdmissionTest, WhatIsTheOperatorsNeedsTheRole) {
  config::AuthConfig auth = OneToken();
  auth.tokens.push_back({.tenant = "a", .sha256 = Sha256Of("mine"), .role = Role::kOperate});
  const auto admission = Make(auth);
  const CallOrigin user{.authorization = kSecret}, owner{.authorization = "Bearer mine"};
  EXPECT_TRUE(admission->Admit(user).ok());
  EXPECT_TRUE(absl::IsPermissionDenied(admission->Admit(user, Role::kOperate).status()));
  EXPECT_TRUE(admission->Admit(owner).ok());
  EXPECT_TRUE(admission->Admit(owner, Role::kOperate).ok());
  EXPECT_TRUE(absl::IsUnauthenticated(admission->Admit({}, Role::kOperate).status()));
  EXPECT_TRUE(Make({})->Admit({}, Role::kOperate).ok());
}

TEST_F(AdmissionTest, ATenantMakesASecondsWorthOfCallsAtOnceAndThenAsManyASecond) {
  config::AuthConfig auth = OneToken();
  auth.tokens.push_back({.tenant = "b", .sha256 = Sha256Of("theirs")});
  const auto admission = Make(auth, 4);
  const auto let_in = [&](const char* token) {
    int count = 0;
    while (count < 100 && admission->Admit({.authorization = token}).ok()) ++count;
    return count;
  };
  EXPECT_EQ(let_in(kSecret), 4);
  EXPECT_TRUE(absl::IsResourceExhausted(admission->Admit({.authorization = kSecret}).status()));
  EXPECT_EQ(let_in("Bearer theirs"), 4);
  clock_.Advance(absl::Milliseconds(500));
  EXPECT_EQ(let_in(kSecret), 2);
  clock_.Advance(absl::Hours(1));
  EXPECT_EQ(let_in(kSecret), 4);
  // The wall clock means nothing.
  clock_.JumpWall(absl::Hours(1));
  EXPECT_EQ(let_in(kSecret), 0);
}

TEST_F(AdmissionTest, TokensAreTakenOverFromAFileThatChanges) {
  const kino::testing::TempDir folder;
  config::AuthConfig auth;
  auth.tokens_file = folder.Write("tokens.yaml", TokensFile({{"old", ""}}));
  const auto admission = Make(auth);
  const auto knows = [&](const char* token) {
    admission->Refresh();
    return admission->Admit({.authorization = token}).ok();
  };
  EXPECT_TRUE(knows("Bearer old"));
  folder.Write("tokens.yaml", TokensFile({{"old", ""}, {"new", ""}}));
  EXPECT_TRUE(knows("Bearer old") && knows("Bearer new"));
  folder.Write("tokens.yaml", "tokens: [{sha256: 3}]");
  EXPECT_TRUE(knows("Bearer old") && knows("Bearer new"));
  std::filesystem::remove(auth.tokens_file);
  EXPECT_TRUE(knows("Bearer old") && knows("Bearer new"));
  folder.Write("tokens.yaml", TokensFile({{"new", ""}}));
  EXPECT_FALSE(knows("Bearer old"));
  EXPECT_TRUE(knows("Bearer new"));
  // Secrets are mounted as links to files that are exchanged.
  std::filesystem::create_symlink(folder.Write("next", TokensFile({{"next", ""}})),
                                  folder.path() + "/link");
  std::filesystem::rename(folder.path() + "/link", auth.tokens_file);
  EXPECT_TRUE(knows("Bearer next"));
  // Nobody is let in where all tokens have gone.
  folder.Write("next", "tokens: []\n");
  EXPECT_FALSE(knows("Bearer next"));
  EXPECT_FALSE(admission->Admit({}).ok());
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
