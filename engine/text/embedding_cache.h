// Prompt embeddings by what made them, least recently used first out. One thread at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <list>
#include <string>
#include <unordered_map>
#include <vector>

namespace kino::engine {

class EmbeddingCache {
 public:
  explicit EmbeddingCache(int64_t capacity_bytes) : capacity_bytes_(capacity_bytes) {}

  // The encoder with its plan and dtype, the ids (their number is the length).
  static std::string Key(const std::string& encoder, const std::vector<int64_t>& ids);

  // An undefined tensor when it is not there.
  at::Tensor Find(const std::string& key);
  // Kept on the host. An entry larger than the capacity is not kept.
  void Clear();
  void Insert(const std::string& key, const at::Tensor& embedding);
  int64_t bytes() const { return bytes_; }

 private:
  struct Entry {
    std::string key;
    at::Tensor embedding;
  };
  int64_t capacity_bytes_;
  int64_t bytes_ = 0;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_key_;
};

}  // namespace kino::engine
