// What a GPU would launch and move, counted from shapes (kernel_counter.h). A value; no torch.
#pragma once

namespace kino::engine {

// The limits that roofline times are told for: an H200, dense bfloat16 products and its memory.
struct Roofline {
  double flops_per_second = 989e12;
  double bytes_per_second = 4.8e12;
};

struct KernelCounts {
  double launches = 0;
  // Each tensor that a kernel takes or gives once, whatever its caches do.
  double bytes_read = 0;
  double bytes_written = 0;
  // The sum over launches of what takes longer, computing or moving.
  double roofline_seconds = 0;

  void Add(const KernelCounts& other, double times = 1) {
    launches += times * other.launches;
    bytes_read += times * other.bytes_read;
    bytes_written += times * other.bytes_written;
    roofline_seconds += times * other.roofline_seconds;
  }
};

}  // namespace kino::engine
