#include "engine/encoder_thread.h"

#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

#include "engine/core/status.h"
#include "engine/core/status_bridge.h"

namespace kino::engine {

EncoderThread::EncoderThread(std::unique_ptr<Mp4Writer> writer)
    : writer_(std::move(writer)), thread_([this] { Run(); }) {}

EncoderThread::~EncoderThread() {
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

absl::Status EncoderThread::Add(const at::Tensor& frames) {
  Chunk chunk{frames, std::nullopt};
  if (!frames.is_cpu()) {
    chunk.frames =
        at::empty(frames.sizes(), at::TensorOptions().dtype(at::kByte).pinned_memory(true));
    chunk.frames.copy_(frames, /*non_blocking=*/true);
    const c10::impl::VirtualGuardImpl device(frames.device().type());
    chunk.copied.emplace(frames.device().type());
    chunk.copied->record(device.getStream(frames.device()));
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return chunks_.size() < kMaxChunks || is_done_; });
  if (is_done_) return status_;
  chunks_.push_back(std::move(chunk));
  changed_.notify_all();
  return absl::OkStatus();
}

absl::Status EncoderThread::Finish() {
  std::unique_lock lock(mutex_);
  is_complete_ = true;
  changed_.notify_all();
  changed_.wait(lock, [&] { return is_done_; });
  return status_;
}

void EncoderThread::Run() {
  std::unique_lock lock(mutex_);
  while (status_.ok()) {
    changed_.wait(lock, [&] { return !chunks_.empty() || is_complete_ || is_stopped_; });
    if (is_stopped_) break;
    const bool is_end = chunks_.empty();
    const Chunk* const chunk = is_end ? nullptr : &chunks_.front();
    lock.unlock();
    absl::Status status = is_end ? writer_->Finish() : Encode(*chunk);
    lock.lock();
    status_ = std::move(status);
    if (is_end) break;
    chunks_.pop_front();
    changed_.notify_all();
  }
  chunks_.clear();
  is_done_ = true;
  changed_.notify_all();
}

absl::Status EncoderThread::Encode(const Chunk& chunk) {
  if (chunk.copied) {
    KINO_RETURN_IF_ERROR(RunGuarded([&] {
      chunk.copied->synchronize();
      return absl::OkStatus();
    }));
  }
  const uint8_t* frame = chunk.frames.const_data_ptr<uint8_t>();
  const int64_t frame_bytes = chunk.frames.stride(0);
  for (int64_t i = 0; i < chunk.frames.size(0); ++i, frame += frame_bytes) {
    {
      const std::lock_guard lock(mutex_);
      if (is_stopped_) return absl::CancelledError("the run is gone");
    }
    KINO_RETURN_IF_ERROR(writer_->AddFrame(frame));
  }
  return absl::OkStatus();
}

}  // namespace kino::engine
