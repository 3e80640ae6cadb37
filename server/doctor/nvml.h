// What NVIDIA's management library says of the driver and its devices. The library comes with the
// driver and is opened at run time. Source of its interface: nvml.h of the CUDA toolkit.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kino::doctor {

struct Gpu {
  std::string name;
  int64_t memory_bytes = 0;
  int64_t free_bytes = 0;
};

struct Driver {
  std::string version{};  // empty: there is no driver
  int cuda = 0;           // the newest CUDA that it runs: 13000 for 13.0
  std::vector<Gpu> gpus{};
  std::string problem{};  // why the driver that is there tells nothing
};

// `library`: the file's name, as dlopen takes it.
Driver AskNvml(const std::string& library = "libnvidia-ml.so.1");

}  // namespace kino::doctor
