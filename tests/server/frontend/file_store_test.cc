// The frontend's files on a disk that fails, waits and loses its power.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "server/frontend/artifacts/file_store.h"
#include "tests/scheduler/files/simulated_disk.h"
#include "tests/support/seeded_random.h"
#include "tests/support/temp_dir.h"

namespace kino::frontend {
namespace {

using scheduler::DiskCall;
using scheduler::DiskFault;
using scheduler::SimulatedDisk;
using scheduler::Survival;

class FileStoreDiskTest : public ::testing::Test {
 protected:
  void Open() {
    files_.reset();
    auto files = FileStore::Open(folder_.path(), disk_);
    ASSERT_TRUE(files.ok()) << files.status();
    files_ = *std::move(files);
  }
  std::string ReadFile(const std::string& name) {
    std::ifstream file(folder_.path() + "/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::set<std::string> Names(const std::string& folder) {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path() + "/" + folder)) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }
  // A video of one attempt in three chunks, as a worker sends it.
  absl::Status MakeVideo(const std::string& name) {
    auto writer = files_->OpenWriter(name);
    if (!writer.ok()) return writer.status();
    for (int64_t i = 0; i < 3; ++i) {
      const absl::Status appended = (*writer)->Append(i * 2000, Chunk(i));
      if (!appended.ok()) return appended;
    }
    const auto digest = files_->FinishVideo(name);
    if (digest.ok()) {
      EXPECT_EQ(digest->size_bytes, 6000);
    }
    return digest.status();
  }
  absl::Status MakeAsset(const std::string& name) {
    auto upload = files_->CreateUpload();
    if (!upload.ok()) return upload.status();
    for (int64_t i = 0; i < 3; ++i) {
      const absl::Status appended = (*upload)->Append(Chunk(i));
      if (!appended.ok()) return appended;
    }
    return files_->KeepAsset(**upload, name);
  }
  static std::string Chunk(int64_t i) { return std::string(2000, static_cast<char>('a' + i)); }
  static std::string Content() { return Chunk(0) + Chunk(1) + Chunk(2); }

  kino::testing::TempDir folder_;
  SimulatedDisk disk_;
  std::unique_ptr<FileStore> files_;
};

TEST_F(FileStoreDiskTest, WhicheverCallFailsTheErrorIsToldAndNothingIsLeft) {
  Open();
  for (const int error : {ENOSPC, EIO, EMFILE}) {
    bool has_struck = true;
    for (int count = 0; has_struck; ++count) {
      SCOPED_TRACE(::testing::Message() << "errno " << error << " at call " << count);
      disk_.PlanFault({.count = count, .error = error, .bytes_written = 700});
      const absl::Status video = MakeVideo("job.1.mp4");
      const absl::Status asset = MakeAsset("asset");
      has_struck = disk_.faults_struck() > 0;
      disk_.Heal();
      for (const absl::Status& status : {video, asset}) {
        if (status.ok() || error != ENOSPC) continue;
        EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
      }
      EXPECT_NE(has_struck, video.ok() && asset.ok()) << video << asset;
      if (video.ok()) {
        EXPECT_EQ(ReadFile("videos/job.1.mp4"), Content());
      }
      EXPECT_EQ(Names("assets"),
                asset.ok() ? std::set<std::string>{"asset"} : std::set<std::string>());
      EXPECT_EQ(Names("uploads"), std::set<std::string>());
      files_->RemoveVideo("job.1.mp4");
      files_->RemoveAsset("asset");
    }
  }
}

TEST_F(FileStoreDiskTest, ChunkThatFailsHalfWayIsCutBackAndMayComeAgain) {
  Open();
  auto writer = files_->OpenWriter("job.1.mp4");
  ASSERT_TRUE(writer.ok() && (*writer)->Append(0, Chunk(0)).ok());
  disk_.PlanFault({.calls = {DiskCall::kWrite}, .error = ENOSPC, .bytes_written = 999});
  EXPECT_EQ((*writer)->Append(2000, Chunk(1)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ((*writer)->size(), 2000);
  EXPECT_EQ(ReadFile("videos/job.1.mp4"), Chunk(0));
  EXPECT_TRUE((*writer)->Append(2000, Chunk(1)).ok());
  EXPECT_EQ(ReadFile("videos/job.1.mp4"), Chunk(0) + Chunk(1));

  auto upload = files_->CreateUpload();
  ASSERT_TRUE(upload.ok() && (*upload)->Append(Chunk(0)).ok());
  disk_.PlanFault({.calls = {DiskCall::kWrite}, .error = ENOSPC, .bytes_written = 999});
  EXPECT_FALSE((*upload)->Append(Chunk(1)).ok());
  EXPECT_TRUE((*upload)->Append(Chunk(1)).ok());
  ASSERT_TRUE(files_->KeepAsset(**upload, "asset").ok());
  EXPECT_EQ(ReadFile("assets/asset"), Chunk(0) + Chunk(1));
}

TEST_F(FileStoreDiskTest, VideoIsNotFinishedBeforeFileAndFolderAreSynced) {
  Open();
  for (const DiskCall call : {DiskCall::kSync, DiskCall::kSyncFolder}) {
    SCOPED_TRACE(scheduler::DiskCallName(call));
    disk_.Hold(call, "videos");
    absl::Notification finished;
    std::thread thread([&] {
      EXPECT_TRUE(MakeVideo("job.1.mp4").ok());
      finished.Notify();
    });
    EXPECT_TRUE(disk_.WaitUntilHeld());
    EXPECT_FALSE(finished.HasBeenNotified());
    disk_.Release();
    thread.join();
  }
}

// Cuts the power at every moment of making a video and an asset; gives how often something that was
// said to be kept was lost.
class FileStorePowerTest : public FileStoreDiskTest {
 protected:
  int CutEverywhere(Survival survival, int64_t omitted_sync) {
    int lost = 0;
    for (int64_t cut = 0;; ++cut) {
      kino::testing::TempDir folder;
      SimulatedDisk disk;
      scheduler::SeededRandom random(static_cast<uint64_t>(cut));
      disk.TrackPower(folder.path());
      if (omitted_sync > 0) disk.OmitSyncs(omitted_sync, omitted_sync);
      disk.CutPowerAfter(cut);
      bool has_video = false, has_asset = false;
      auto files = FileStore::Open(folder.path(), disk);
      if (files.ok()) {
        files_ = *std::move(files);
        has_video = MakeVideo("job.1.mp4").ok();
        has_asset = MakeAsset("asset").ok();
        files_.reset();
      }
      const bool is_cut = disk.is_cut();
      disk.Restore(survival, random);
      const auto holds = [&](const char* name) {
        std::ifstream file(folder.path() + "/" + name, std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(file), {}) == Content();
      };
      if (has_video && !holds("videos/job.1.mp4")) ++lost;
      if (has_asset && !holds("assets/asset")) ++lost;
      if (!is_cut) {
        EXPECT_TRUE(has_video && has_asset);
        EXPECT_GE(cut, 15);
        return lost;
      }
    }
  }
  // The data folder; the video and its folder; the asset and its folder.
  static constexpr int64_t kSyncs = 5;
};

TEST_F(FileStorePowerTest, WhatWasSaidToBeKeptSurvivesAPowerCut) {
  EXPECT_EQ(CutEverywhere(Survival::kNothing, 0), 0);
  EXPECT_EQ(CutEverywhere(Survival::kSome, 0), 0);
  EXPECT_EQ(CutEverywhere(Survival::kEverything, 0), 0);
}

TEST_F(FileStorePowerTest, ThisTestSeesEverySyncThatIsLeftOut) {
  for (int64_t sync = 1; sync <= kSyncs; ++sync) {
    EXPECT_GT(CutEverywhere(Survival::kNothing, sync), 0) << "sync " << sync;
  }
  EXPECT_EQ(CutEverywhere(Survival::kNothing, kSyncs + 1), 0) << "there is one more sync";
}

TEST_F(FileStoreDiskTest, SweepAsksForSomeNamesAtATime) {
  Open();
  for (int i = 0; i < 2500; ++i) {
    std::ofstream(folder_.path() + "/videos/" + std::to_string(i)) << "x";
  }
  std::ofstream(folder_.path() + "/uploads/9") << "x";
  std::vector<size_t> asked;
  const auto removed = files_->RemoveLeftovers(
      [&](const std::vector<std::string>& names) -> absl::StatusOr<std::vector<std::string>> {
        asked.push_back(names.size());
        std::vector<std::string> left_over;
        for (const std::string& name : names) {
          if (name.back() == '9') left_over.push_back(name);
        }
        return left_over;
      });
  ASSERT_TRUE(removed.ok());
  EXPECT_EQ(*removed, 251);
  EXPECT_THAT(asked, ::testing::ElementsAre(1000u, 1000u, 500u, 1u));
  EXPECT_EQ(Names("videos").size(), 2250u);
  EXPECT_EQ(files_
                ->RemoveLeftovers([](const std::vector<std::string>&) {
                  return absl::StatusOr<std::vector<std::string>>(absl::UnavailableError("x"));
                })
                .status()
                .code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(Names("videos").size(), 2250u);
}

TEST_F(FileStoreDiskTest, FreeSpaceIsThatOfTheDisk) {
  Open();
  const auto free = files_->FreeBytes();
  ASSERT_TRUE(free.ok()) << free.status();
  const int64_t seen = static_cast<int64_t>(std::filesystem::space(folder_.path()).available);
  EXPECT_NEAR(static_cast<double>(*free), static_cast<double>(seen), 1e9);
  disk_.PlanFault({.calls = {DiskCall::kFreeBytes}});
  EXPECT_FALSE(files_->FreeBytes().ok());
}

}  // namespace
}  // namespace kino::frontend
