// What the server and its tenants may take of the disk.
#include "server/frontend/artifacts/disk_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/status.h"
#include "scheduler/store/sqlite/open.h"
#include "tests/support/fake_clock.h"
#include "tests/support/seeded_random.h"
#include "tests/support/temp_dir.h"

namespace kino::frontend {
namespace {

class DiskBudgetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto files = FileStore::Open(folder_.path());
    ASSERT_TRUE(files.ok()) << files.status();
    files_ = *std::move(files);
    auto store =
        scheduler::OpenSqliteJobStore({.path = folder_.path() + "/kino.db"}, {}, clock_, random_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    limits_.min_free_disk_bytes = 0;
  }
  DiskBudget Make() { return DiskBudget(*store_, *files_, limits_); }
  void AddAsset(const std::string& id, const std::string& tenant, int64_t bytes) {
    ASSERT_TRUE(
        store_->InsertAsset({.id = id, .tenant = tenant, .size_bytes = bytes, .file_name = id})
            .ok());
  }
  static std::string Reason(const absl::Status& status) {
    return status.ok() ? "ok" : scheduler::ReasonOf(status);
  }

  kino::testing::TempDir folder_;
  scheduler::FakeClock clock_;
  scheduler::SeededRandom random_{1};
  std::unique_ptr<FileStore> files_;
  std::unique_ptr<scheduler::JobStore> store_;
  config::LimitsConfig limits_;
};

TEST_F(DiskBudgetTest, NothingIsLimitedByDefault) {
  DiskBudget budget = Make();
  AddAsset("a", "t", int64_t{1} << 60);
  EXPECT_TRUE(budget.Check("t").ok());
  EXPECT_TRUE(budget.Reserve("t", int64_t{1} << 60).ok());
  EXPECT_EQ(budget.Find().disk, "");
  EXPECT_TRUE(budget.Find().tenants.empty());
}

TEST_F(DiskBudgetTest, LastByteIsTheTenantsAndTheNextIsNot) {
  limits_.max_tenant_disk_bytes = 100;
  DiskBudget budget = Make();
  AddAsset("a", "t", 60);
  AddAsset("b", "u", 100);
  EXPECT_EQ(Reason(budget.Reserve("t", 41).status()), kReasonTenantDiskFull);
  EXPECT_EQ(Reason(budget.Reserve("t", 40).status()), "ok");
  EXPECT_EQ(Reason(budget.Check("t")), "ok") << "what was reserved has been given back";
  EXPECT_EQ(Reason(budget.Check("u")), kReasonTenantDiskFull);
  EXPECT_EQ(Reason(budget.Check("new")), "ok");
  EXPECT_THAT(budget.Find().tenants, ::testing::ElementsAre("u"));
  EXPECT_EQ(budget.Find().disk, "");
  const std::string words(budget.Check("u").message());
  for (const char* part : {"'u'", " 100 bytes of the 100 ", "delete"})
    EXPECT_THAT(words, ::testing::HasSubstr(part));
}

TEST_F(DiskBudgetTest, UploadsUnderWayCountUntilTheyEnd) {
  limits_.max_tenant_disk_bytes = 100;
  limits_.max_disk_bytes = 150;
  DiskBudget budget = Make();
  std::vector<DiskBudget::Reservation> held;
  held.push_back(*budget.Reserve("t", 60));
  EXPECT_EQ(Reason(budget.Reserve("t", 41).status()), kReasonTenantDiskFull);
  held.push_back(*budget.Reserve("t", 40));
  EXPECT_EQ(Reason(budget.Check("t")), kReasonTenantDiskFull);
  EXPECT_EQ(Reason(budget.Reserve("u", 51).status()), scheduler::kReasonDiskFull);
  held.push_back(*budget.Reserve("u", 50));
  EXPECT_EQ(Reason(budget.Check("v")), scheduler::kReasonDiskFull);
  EXPECT_THAT(budget.Find().disk, ::testing::HasSubstr("limits.max_disk"));
  held.pop_back();
  EXPECT_EQ(budget.Find().disk, "");
  EXPECT_EQ(Reason(budget.Check("u")), "ok");
  EXPECT_EQ(Reason(budget.Check("t")), kReasonTenantDiskFull);
  held.clear();
  EXPECT_EQ(Reason(budget.Reserve("t", 100).status()), "ok");
}

TEST_F(DiskBudgetTest, LimitThatWasLoweredBelowWhatIsThereHoldsEverybody) {
  AddAsset("a", "t", 60);
  limits_.max_disk_bytes = 10;
  DiskBudget budget = Make();
  EXPECT_EQ(Reason(budget.Check("u")), scheduler::kReasonDiskFull);
  EXPECT_EQ(Reason(budget.Reserve("u", INT64_MAX).status()), scheduler::kReasonDiskFull);
  ASSERT_TRUE(store_->DeleteAsset("t", "a").ok());
  EXPECT_EQ(Reason(budget.Check("u")), "ok");
}

TEST_F(DiskBudgetTest, DiskBelowItsReserveIsFullForAll) {
  limits_.min_free_disk_bytes = INT64_MAX;
  DiskBudget budget = Make();
  EXPECT_EQ(Reason(budget.Check("t")), scheduler::kReasonDiskFull);
  EXPECT_THAT(budget.Find().disk, ::testing::HasSubstr("expected at least"));
}

}  // namespace
}  // namespace kino::frontend
