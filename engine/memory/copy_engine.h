// Brings slabs of weights to the device while the compute thread works: one thread that reads the
// weights' home (the mapped file, host memory), and a Transport that copies. Events order the
// copies among the device's work; nothing waits for a whole stream. Threads: Start, Wait and the
// destructor belong to the compute thread.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/memory/staging_slabs.h"
#include "engine/memory/transport.h"

namespace kino::engine {

// A part of a slab that is written by itself.
struct SlabPiece {
  int64_t offset = 0;
  int64_t bytes = 0;
  std::function<void(const at::Tensor& host)> fill;  // host: uint8 of `bytes`
};

struct SlabCopy {
  at::Tensor to;  // uint8 on the device
  // The slab in host memory as it is to be on the device: one copy. Undefined: it is made of
  // `pieces`, in order of their offsets, which live until the copy is waited for.
  at::Tensor slab;
  const std::vector<SlabPiece>* pieces = nullptr;
  // Not before this compute work is done.
  std::shared_ptr<const Fence> after;
};

class CopyEngine {
 public:
  // A copy under way; 0 is none.
  using Ticket = uint64_t;

  // Copies of pieces go through two slabs of `slabs`, or larger ones for a piece that is, where the
  // transport needs any.
  CopyEngine(std::unique_ptr<Transport> transport, std::shared_ptr<StagingSlabs> slabs);
  ~CopyEngine();
  CopyEngine(const CopyEngine&) = delete;
  CopyEngine& operator=(const CopyEngine&) = delete;

  Ticket Start(SlabCopy copy);
  // After this compute work sees the slab. Rethrows what the copy threw.
  void Wait(Ticket ticket);
  // Blocks until every copy that was waited for is done, and gives the staging slabs back.
  // REQUIRES: no ticket is left. Host memory that was copied from may be freed afterwards.
  void Drain();
  Transport& transport() { return *transport_; }

 private:
  struct Job {
    Ticket ticket;
    SlabCopy copy;
  };
  struct Done {
    std::shared_ptr<const Fence> fence;  // of what was copied, if anything was
    std::exception_ptr error;
  };
  struct Staging {
    at::Tensor slab;
    std::shared_ptr<const Fence> last_copy;
  };

  void Work();
  Done Run(const SlabCopy& copy);
  // Copies the pieces [begin, end) in one.
  std::shared_ptr<const Fence> CopyStaged(const SlabCopy& copy, size_t begin, size_t end);

  const std::unique_ptr<Transport> transport_;
  const std::shared_ptr<StagingSlabs> slabs_;
  std::array<Staging, 2> staging_;  // the copy thread's while there are tickets
  size_t next_staging_ = 0;         // the same
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> queue_;                  // guarded by mutex_
  std::unordered_map<Ticket, Done> done_;  // guarded by mutex_
  std::shared_ptr<const Fence> last_;      // of the latest copy waited for; the compute thread's
  Ticket last_ticket_ = 0;                 // its; the compute thread's
  Ticket started_ = 0;                     // guarded by mutex_
  bool stop_ = false;                      // guarded by mutex_
  std::thread thread_;
};

}  // namespace kino::engine
