#include "engine/core/device_work_counter.h"

#include <pthread.h>

#include <chrono>
#include <utility>

namespace kino::engine {
namespace {

// Far below the time between two heartbeats, and nothing to a CPU.
constexpr std::chrono::milliseconds kLook{5};

}  // namespace

std::unique_ptr<WorkCounter> MakeWorkCounter(c10::Device device) {
  if (!device.is_cuda()) return std::make_unique<HostWorkCounter>();
  return std::make_unique<DeviceWorkCounter>(DeviceClock::Create(device));
}

DeviceWorkCounter::DeviceWorkCounter(std::unique_ptr<DeviceClock> clock, size_t most_marks)
    : clock_(std::move(clock)), most_marks_(most_marks), thread_([this] { Loop(); }) {}

DeviceWorkCounter::~DeviceWorkCounter() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void DeviceWorkCounter::Count() {
  // Outside of the lock: it may block while the device's queue is full.
  std::shared_ptr<const TimeMark> mark = clock_->Mark();
  Pending replaced;  // freed outside of the lock too
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (pending_.size() >= most_marks_) {
      replaced = std::move(pending_.back());
      pending_.pop_back();
    }
    pending_.push_back({++asked_, std::move(mark)});
  }
  changed_.notify_all();
}

void DeviceWorkCounter::Loop() {
  pthread_setname_np(pthread_self(), "work-counter");
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !pending_.empty(); });
    if (stopping_) return;
    const std::shared_ptr<const TimeMark> mark = pending_.front().mark;
    lock.unlock();
    const bool is_reached = clock_->Reached(*mark);
    lock.lock();
    if (!is_reached) {
      changed_.wait_for(lock, kLook, [this] { return stopping_; });
      continue;
    }
    // The latest mark may have moved on meanwhile: then its new place is looked at next.
    if (pending_.front().mark != mark) continue;
    done_.store(pending_.front().units, std::memory_order_relaxed);
    pending_.pop_front();
  }
}

}  // namespace kino::engine
