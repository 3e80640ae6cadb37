#include "engine/text/embedding_cache.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

namespace kino::engine {
namespace {

at::Tensor Embedding(float value) { return at::full({10}, value); }  // 40 bytes

TEST(EmbeddingCacheTest, ForgetsWhatWasUsedLeastRecently) {
  EmbeddingCache cache(100);
  cache.Insert("a", Embedding(1));
  cache.Insert("b", Embedding(2));
  EXPECT_TRUE(cache.Find("a").defined());
  cache.Insert("c", Embedding(3));
  EXPECT_TRUE(cache.Find("a").defined());
  EXPECT_FALSE(cache.Find("b").defined());
  EXPECT_EQ(cache.Find("c")[0].item<float>(), 3);
  EXPECT_EQ(cache.bytes(), 80);
}

TEST(EmbeddingCacheTest, KeepsNothingLargerThanItself) {
  EmbeddingCache cache(30);
  cache.Insert("a", Embedding(1));
  EXPECT_FALSE(cache.Find("a").defined());
  EXPECT_EQ(cache.bytes(), 0);
}

TEST(EmbeddingCacheTest, KeysTellEncodersIdsAndLengthsApart) {
  const std::string key = EmbeddingCache::Key("t5", {1, 23, 0});
  EXPECT_EQ(EmbeddingCache::Key("t5", {1, 23, 0}), key);
  EXPECT_NE(EmbeddingCache::Key("t5", {12, 3, 0}), key);
  EXPECT_NE(EmbeddingCache::Key("t5", {1, 23}), key);
  EXPECT_NE(EmbeddingCache::Key("t5bf16", {1, 23, 0}), key);
}

}  // namespace
}  // namespace kino::engine
