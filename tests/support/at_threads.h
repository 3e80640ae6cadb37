// How many threads torch's loops take while a test runs. A loop in parallel has one piece on one
// thread, whatever its size: to see it cut, give it several, more than there are cores if need be.
#pragma once

#include <ATen/Parallel.h>

namespace kino::testing {

class AtThreads {
 public:
  explicit AtThreads(int threads) : before_(at::get_num_threads()) { at::set_num_threads(threads); }
  ~AtThreads() { at::set_num_threads(before_); }
  AtThreads(const AtThreads&) = delete;
  AtThreads& operator=(const AtThreads&) = delete;

 private:
  int before_;
};

}  // namespace kino::testing
