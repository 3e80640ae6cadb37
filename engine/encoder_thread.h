// Encodes a run's frames on a thread of its own, so that the device computes the next ones
// meanwhile. Add and Finish are called from one thread.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "absl/status/status.h"
#include "engine/media/mp4_writer.h"

namespace kino::engine {

class EncoderThread {
 public:
  // That are held at a time: while one is encoded, the next one is computed.
  static constexpr size_t kMaxChunks = 1;

  // The writer's sink is called on the thread from here on.
  explicit EncoderThread(std::unique_ptr<Mp4Writer> writer);
  // Drops what has not been encoded; the sink is not called any more.
  ~EncoderThread();
  EncoderThread(const EncoderThread&) = delete;
  EncoderThread& operator=(const EncoderThread&) = delete;

  // frames: [T, H, W, 3] uint8, contiguous. From a device they are copied to pinned host memory
  // behind what its stream runs, and the host does not wait for it. Waits while kMaxChunks are
  // held. The first error of an earlier chunk, of the encoder or the sink, is returned from here.
  absl::Status Add(const at::Tensor& frames);
  // Waits for all frames and the end of the file. REQUIRES: called at most once, last.
  absl::Status Finish();

 private:
  struct Chunk {
    at::Tensor frames;
    std::optional<c10::Event> copied;
  };

  void Run();
  absl::Status Encode(const Chunk& chunk);

  const std::unique_ptr<Mp4Writer> writer_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Chunk> chunks_;  // the first one is being encoded
  bool is_complete_ = false;  // no chunk will follow
  bool is_stopped_ = false;   // what is left is dropped
  bool is_done_ = false;      // the thread will not touch anything any more
  absl::Status status_;
  std::thread thread_;  // last: it uses the others
};

}  // namespace kino::engine
