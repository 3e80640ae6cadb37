// A ledger for walks that replay what a layer allocates, on shapes instead of tensors: planners
// find the most bytes that live at a time without running anything. Values; one thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

namespace kino::engine {

class LiveBytes {
 public:
  int64_t live() const { return live_; }
  int64_t peak() const { return peak_; }
  // `bytes` more for a moment.
  void Touch(int64_t bytes) { peak_ = std::max(peak_, live_ + bytes); }

 private:
  friend class HeldBytes;
  void Add(int64_t bytes) { peak_ = std::max(peak_, live_ += bytes); }
  int64_t live_ = 0;
  int64_t peak_ = 0;
};

// As a tensor that owns its storage: counted until it ends or is assigned over. The ledger outlives
// it.
class HeldBytes {
 public:
  HeldBytes() = default;
  HeldBytes(LiveBytes& ledger, int64_t bytes) : ledger_(&ledger), bytes_(bytes) {
    ledger.Add(bytes);
  }
  HeldBytes(HeldBytes&& other) noexcept { *this = std::move(other); }
  HeldBytes& operator=(HeldBytes&& other) noexcept {
    if (this == &other) return *this;
    Release();
    ledger_ = std::exchange(other.ledger_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }
  ~HeldBytes() { Release(); }
  int64_t bytes() const { return bytes_; }
  void Release() {
    if (ledger_ != nullptr) ledger_->live_ -= bytes_;
    ledger_ = nullptr;
    bytes_ = 0;
  }

 private:
  LiveBytes* ledger_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace kino::engine
