#include "server/doctor/nvml.h"

#include <dlfcn.h>

#include <array>
#include <memory>

#include "absl/strings/str_cat.h"

namespace kino::doctor {
namespace {

struct Memory {  // nvmlMemory_t
  unsigned long long total, free, used;
};
using Device = void*;

struct Closed {
  void operator()(void* library) const { dlclose(library); }
};
using Library = std::unique_ptr<void, Closed>;

// Calls a function of the library; false: it is not there, or says that it failed (0 is success).
template <typename... Arguments>
bool Call(const Library& library, const char* name, Arguments... arguments) {
  using Function = int (*)(Arguments...);
  const auto function = reinterpret_cast<Function>(dlsym(library.get(), name));
  return function != nullptr && function(arguments...) == 0;
}

}  // namespace

Driver AskNvml(const std::string& library_name) {
  Driver driver;
  const Library library(dlopen(library_name.c_str(), RTLD_NOW | RTLD_LOCAL));
  if (library == nullptr) return driver;
  std::array<char, 96> text{};
  const auto size = static_cast<unsigned>(text.size());
  driver.version = "of unknown version";
  if (!Call(library, "nvmlInit_v2")) {
    driver.problem = "its library is there and cannot be used: is the kernel's module loaded?";
    return driver;
  }
  if (Call(library, "nvmlSystemGetDriverVersion", text.data(), size)) driver.version = text.data();
  Call(library, "nvmlSystemGetCudaDriverVersion_v2", &driver.cuda);
  unsigned count = 0;
  if (!Call(library, "nvmlDeviceGetCount_v2", &count)) driver.problem = "it tells no devices";
  for (unsigned i = 0; i < count; ++i) {
    Device device = nullptr;
    Memory memory{};
    if (!Call(library, "nvmlDeviceGetHandleByIndex_v2", i, &device) ||
        !Call(library, "nvmlDeviceGetMemoryInfo", device, &memory)) {
      driver.problem = absl::StrCat("GPU ", i, " does not answer");
      continue;
    }
    text.fill(0);
    Call(library, "nvmlDeviceGetName", device, text.data(), size);
    driver.gpus.push_back({.name = text.data(),
                           .memory_bytes = static_cast<int64_t>(memory.total),
                           .free_bytes = static_cast<int64_t>(memory.free)});
  }
  Call(library, "nvmlShutdown");
  return driver;
}

}  // namespace kino::doctor
