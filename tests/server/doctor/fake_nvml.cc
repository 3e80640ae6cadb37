// As much of NVIDIA's management library as Kino asks: two GPUs, of which one does not answer where
// $FAKE_NVML_BROKEN says so.
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {
bool Is(const char* what) {
  const char* broken = std::getenv("FAKE_NVML_BROKEN");
  return broken != nullptr && std::strcmp(broken, what) == 0;
}
struct Memory {
  unsigned long long total, free, used;
};
int devices[2];
}  // namespace

extern "C" {
int nvmlInit_v2() { return Is("init") ? 9 : 0; }
int nvmlShutdown() { return 0; }
int nvmlSystemGetDriverVersion(char* version, unsigned length) {
  std::snprintf(version, length, "580.65.06");
  return 0;
}
int nvmlSystemGetCudaDriverVersion_v2(int* version) {
  *version = 13000;
  return 0;
}
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 2;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  *device = &devices[index];
  return index == 1 && Is("device") ? 15 : 0;
}
int nvmlDeviceGetMemoryInfo(void* device, Memory* memory) {
  *memory = {80ULL << 30, device == &devices[0] ? 79ULL << 30 : 20ULL << 30, 0};
  return 0;
}
int nvmlDeviceGetName(void*, char* name, unsigned length) {
  std::snprintf(name, length, "Fake H100");
  return 0;
}
}
