#include "server/digest/sha256.h"

#include <gtest/gtest.h>

#include <fstream>

namespace kino::digest {
namespace {

// FIPS 180-2, appendix B.
TEST(Sha256, MatchesPublishedVectors) {
  EXPECT_EQ(Sha256().Hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  Sha256 abc;
  abc.Update("a", 1);
  abc.Update("bc", 2);
  const char* expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  EXPECT_EQ(abc.Hex(), expected);
  EXPECT_EQ(abc.Hex(), expected) << "asking does not end the digest";
  EXPECT_EQ(Sha256Of("abc"), expected);
}

TEST(Sha256, FileDigestCountsBytes) {
  const std::string path = testing::TempDir() + "/abc";
  std::ofstream(path) << "abc";
  const auto digest = DigestFile(path);
  ASSERT_TRUE(digest.ok()) << digest.status();
  EXPECT_EQ(digest->size_bytes, 3);
  EXPECT_EQ(digest->sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_TRUE(absl::IsNotFound(DigestFile(path + ".absent").status()));
}

}  // namespace
}  // namespace kino::digest
