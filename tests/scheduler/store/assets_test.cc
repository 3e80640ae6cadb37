#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {
namespace {

class AssetsTest : public StoreTest {
 protected:
  Asset Insert(const std::string& id, const std::string& tenant = "default") {
    auto asset = store_->InsertAsset({.id = id,
                                      .tenant = tenant,
                                      .size_bytes = 99,
                                      .sha256 = "cd34",
                                      .content_type = "image/png",
                                      .width = 10,
                                      .height = 20,
                                      .num_frames = 1,
                                      .fps = 23.976,
                                      .file_name = id + ".png"});
    EXPECT_TRUE(asset.ok()) << asset.status();
    return *asset;
  }
};
KINO_FOR_EVERY_STORE(AssetsTest);

TEST_P(AssetsTest, InsertedAssetIsReadBackWhole) {
  Insert("a");
  Reopen();
  const auto asset = store_->GetAsset("default", "a");
  ASSERT_TRUE(asset.ok()) << asset.status();
  EXPECT_EQ(asset->size_bytes, 99);
  EXPECT_EQ(asset->sha256, "cd34");
  EXPECT_EQ(asset->content_type, "image/png");
  EXPECT_EQ(asset->width, 10);
  EXPECT_EQ(asset->height, 20);
  EXPECT_EQ(asset->num_frames, 1);
  EXPECT_EQ(asset->fps, 23.976);
  EXPECT_EQ(asset->file_name, "a.png");
  EXPECT_EQ(asset->create_time, clock_.Now());
  EXPECT_TRUE(absl::IsNotFound(store_->GetAsset("other", "a").status()));
  EXPECT_TRUE(absl::IsAlreadyExists(
      store_->InsertAsset({.id = "a", .tenant = "x", .file_name = "f"}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->InsertAsset({.id = "b"}).status()));
}

TEST_P(AssetsTest, ListIsNewestFirstAndByTenant) {
  Insert("a");
  Insert("b");
  Insert("c", "other");
  const auto ids = [&](const std::string& tenant, int limit) {
    std::vector<std::string> result;
    const auto assets = store_->ListAssets(tenant, limit);
    for (const Asset& asset : *assets) result.push_back(asset.id);
    return result;
  };
  EXPECT_THAT(ids("default", 10), testing::ElementsAre("b", "a"));
  EXPECT_THAT(ids("", 10), testing::ElementsAre("c", "b", "a"));
  EXPECT_THAT(ids("", 1), testing::ElementsAre("c"));
}

TEST_P(AssetsTest, AssetInUseStaysUntilTheJobEnds) {
  Insert("a");
  NewJob job = MakeJob();
  job.asset_ids = {"a"};
  Submit(job);
  const auto expect_in_use = [&] {
    const auto refused = store_->DeleteAsset("default", "a");
    EXPECT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
    EXPECT_EQ(ReasonOf(refused.status()), kReasonAssetInUse);
    EXPECT_TRUE(store_->DeleteUnusedAssets(absl::InfiniteFuture(), 10)->empty());
  };
  expect_in_use();
  const ClaimedAttempt claimed = Claim();
  expect_in_use();
  ASSERT_TRUE(store_->Commit(claimed.ref, MakeArtifact("v.mp4"), "").ok());
  EXPECT_THAT(*store_->FindLeftOverFiles({"v.mp4", "a.png"}), testing::IsEmpty());
  EXPECT_TRUE(absl::IsNotFound(store_->DeleteAsset("other", "a").status()));
  EXPECT_EQ(*store_->DeleteAsset("default", "a"), "a.png");
  EXPECT_TRUE(absl::IsNotFound(store_->GetAsset("default", "a").status()));
  EXPECT_THAT(*store_->FindLeftOverFiles({"v.mp4", "a.png"}), testing::ElementsAre("a.png"));
}

TEST_P(AssetsTest, UnusedAssetsAreRemovedByAge) {
  Insert("used");
  Insert("old");
  NewJob job = MakeJob();
  job.asset_ids = {"used"};
  Submit(job);
  clock_.Advance(absl::Hours(2));
  Insert("new");
  EXPECT_THAT(*store_->DeleteUnusedAssets(clock_.Now() - absl::Hours(1), 10),
              testing::ElementsAre("old.png"));
  EXPECT_EQ(store_->ListAssets("", 10)->size(), 2u);
}

}  // namespace
}  // namespace kino::scheduler
