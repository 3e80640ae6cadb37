#include "engine/text/embedding_cache.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/trace.h"

namespace kino::engine {

std::string EmbeddingCache::Key(const std::string& encoder, const std::vector<int64_t>& ids) {
  return absl::StrCat(encoder, "|", absl::StrJoin(ids, ","));
}

at::Tensor EmbeddingCache::Find(const std::string& key) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return {};
  entries_.splice(entries_.begin(), entries_, it->second);
  return it->second->embedding;
}

void EmbeddingCache::Insert(const std::string& key, const at::Tensor& embedding) {
  const int64_t bytes = static_cast<int64_t>(embedding.nbytes());
  if (bytes > capacity_bytes_ || by_key_.contains(key)) return;
  while (bytes_ + bytes > capacity_bytes_) {
    bytes_ -= static_cast<int64_t>(entries_.back().embedding.nbytes());
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
  entries_.push_front({key, ToHost(embedding, embedding.scalar_type())});
  by_key_[key] = entries_.begin();
  bytes_ += bytes;
}

void EmbeddingCache::Clear() {
  by_key_.clear();
  entries_.clear();
  bytes_ = 0;
}

}  // namespace kino::engine
