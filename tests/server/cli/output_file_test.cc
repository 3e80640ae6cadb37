#include "server/cli/output_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace kino::cli {
namespace {

// SHA-256 of "abcdef".
constexpr char kDigest[] = "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721";

std::string ReadAll(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class OutputFileTest : public ::testing::Test {
 protected:
  OutputFileTest() { std::filesystem::remove(path_); }
  const std::string path_ = testing::TempDir() + "/out.mp4";
  std::unique_ptr<OutputFile> file_ = *OutputFile::Create(path_);
};

TEST_F(OutputFileTest, AppearsOnlyWhenItIsWhole) {
  ASSERT_TRUE(file_->Write(1, 0, "abc").ok());
  ASSERT_TRUE(file_->Write(1, 3, "def").ok());
  EXPECT_EQ(ReadAll(path_ + ".part"), "abcdef") << "chunks are on disk as they come";
  EXPECT_FALSE(std::filesystem::exists(path_));
  ASSERT_TRUE(file_->Finish(6, kDigest).ok());
  EXPECT_EQ(ReadAll(path_), "abcdef");
  EXPECT_FALSE(std::filesystem::exists(path_ + ".part"));
}

TEST_F(OutputFileTest, ANewAttemptReplacesTheOldBytes) {
  ASSERT_TRUE(file_->Write(1, 0, "a longer first attempt").ok());
  ASSERT_TRUE(file_->Write(2, 0, "abcdef").ok());
  EXPECT_EQ(file_->attempt(), 2);
  EXPECT_EQ(file_->offset(), 6);
  EXPECT_TRUE(file_->Finish(6, kDigest).ok());
}

TEST_F(OutputFileTest, AGapIsRefused) {
  ASSERT_TRUE(file_->Write(1, 0, "abc").ok());
  EXPECT_TRUE(absl::IsDataLoss(file_->Write(1, 4, "x")));
  EXPECT_TRUE(absl::IsDataLoss(file_->Write(1, 0, "x")));
}

TEST_F(OutputFileTest, WrongBytesAreNotKept) {
  ASSERT_TRUE(file_->Write(1, 0, "abcdeX").ok());
  EXPECT_TRUE(absl::IsDataLoss(file_->Finish(6, kDigest)));
  file_.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_FALSE(std::filesystem::exists(path_ + ".part"));
}

TEST(OutputFile, AnUnwritableFolderIsNamed) {
  const auto file = OutputFile::Create("/nonexistent/out.mp4");
  ASSERT_FALSE(file.ok());
  EXPECT_NE(std::string(file.status().message()).find("/nonexistent/out.mp4"), std::string::npos);
}

}  // namespace
}  // namespace kino::cli
