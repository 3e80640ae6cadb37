#include "engine/memory/copy_engine.h"

#include <c10/core/InferenceMode.h>

#include <utility>

namespace kino::engine {

CopyEngine::CopyEngine(std::unique_ptr<Transport> transport, std::shared_ptr<StagingSlabs> slabs)
    : transport_(std::move(transport)), slabs_(std::move(slabs)), thread_([this] { Work(); }) {}

CopyEngine::~CopyEngine() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

CopyEngine::Ticket CopyEngine::Start(SlabCopy copy) {
  const std::lock_guard<std::mutex> lock(mutex_);
  queue_.push_back({++started_, std::move(copy)});
  changed_.notify_all();
  return started_;
}

void CopyEngine::Wait(Ticket ticket) {
  Done done;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return done_.contains(ticket); });
    done = std::move(done_.extract(ticket).mapped());
  }
  // A copy that failed halfway still writes to the slab.
  if (done.fence) {
    transport_->ComputeAfter(*done.fence);
    if (ticket > last_ticket_) {
      last_ticket_ = ticket;
      last_ = std::move(done.fence);
    }
  }
  if (done.error) std::rethrow_exception(done.error);
}

void CopyEngine::Drain() {
  if (last_) transport_->WaitFor(*std::exchange(last_, nullptr));
  for (Staging& staging : staging_) {
    // A copy that failed halfway left one that nobody waited for.
    if (staging.last_copy) transport_->WaitFor(*std::exchange(staging.last_copy, nullptr));
    slabs_->GiveBack(std::exchange(staging.slab, at::Tensor()));
  }
}

std::shared_ptr<const Fence> CopyEngine::CopyStaged(const SlabCopy& copy, size_t begin,
                                                    size_t end) {
  Staging& staging = staging_[next_staging_];
  next_staging_ = (next_staging_ + 1) % staging_.size();
  if (staging.last_copy) transport_->WaitFor(*std::exchange(staging.last_copy, nullptr));
  const int64_t base = (*copy.pieces)[begin].offset;
  const int64_t bytes = (*copy.pieces)[end - 1].offset + (*copy.pieces)[end - 1].bytes - base;
  if (!staging.slab.defined() || staging.slab.numel() < bytes) {
    // Before the larger one is made.
    slabs_->GiveBack(std::exchange(staging.slab, at::Tensor()));
    staging.slab = slabs_->Take(*transport_, bytes);
  }
  for (size_t i = begin; i < end; ++i) {
    const SlabPiece& piece = (*copy.pieces)[i];
    piece.fill(staging.slab.narrow(0, piece.offset - base, piece.bytes));
  }
  staging.last_copy = transport_->Copy(copy.to.narrow(0, base, bytes),
                                       staging.slab.narrow(0, 0, bytes), copy.after.get());
  return staging.last_copy;
}

CopyEngine::Done CopyEngine::Run(const SlabCopy& copy) {
  Done done;
  try {
    if (copy.slab.defined()) {
      done.fence = transport_->Copy(copy.to, copy.slab, copy.after.get());
    } else if (!transport_->needs_staging()) {
      // The device's memory is the host's.
      for (const SlabPiece& piece : *copy.pieces)
        piece.fill(copy.to.narrow(0, piece.offset, piece.bytes));
    } else {
      for (size_t begin = 0; begin < copy.pieces->size();) {
        const SlabPiece& first = (*copy.pieces)[begin];
        size_t end = begin + 1;
        while (end < copy.pieces->size() &&
               (*copy.pieces)[end].offset + (*copy.pieces)[end].bytes - first.offset <=
                   slabs_->slab_bytes()) {
          ++end;
        }
        done.fence = CopyStaged(copy, begin, end);
        begin = end;
      }
    }
  } catch (...) {
    done.error = std::current_exception();
  }
  return done;
}

void CopyEngine::Work() {
  const c10::InferenceMode inference;
  for (;;) {
    Job job;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    Done done = Run(job.copy);
    job.copy = {};
    const std::lock_guard<std::mutex> lock(mutex_);
    done_[job.ticket] = std::move(done);
    changed_.notify_all();
  }
}

}  // namespace kino::engine
