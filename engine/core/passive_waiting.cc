// Makes OpenMP's threads sleep, not spin, while they wait for each other: beside one busy process a
// spinning render takes five times as long. libgomp reads its environment when it is loaded, before
// any constructor of the program, so the program starts itself once more with the variable set. The
// process, its id and its arguments stay. Whoever sets OMP_WAIT_POLICY or GOMP_SPINCOUNT is left
// alone. Linked into every program that computes with torch.
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace {

constexpr size_t kMostVariables = 16384;

bool Sets(const char* entry, const char* name) {
  const size_t length = std::strlen(name);
  return std::strncmp(entry, name, length) == 0 && entry[length] == '=';
}

// Before the C library has set itself up: nothing here may allocate or use `environ`.
void WaitPassively(int, char** argv, char** envp) {
  static char policy[] = "OMP_WAIT_POLICY=passive";
  static char* changed[kMostVariables + 2];
  size_t count = 0;
  for (; envp[count] != nullptr; ++count) {
    if (count == kMostVariables || Sets(envp[count], "OMP_WAIT_POLICY") ||
        Sets(envp[count], "GOMP_SPINCOUNT")) {
      return;
    }
    changed[count] = envp[count];
  }
  changed[count] = policy;
  // Where that cannot be done the program goes on as it is: slower beside others, not wrong.
  execve("/proc/self/exe", argv, changed);
}

// Run before the constructors of every library.
__attribute__((section(".preinit_array"),
               used)) void (*const before_everything)(int, char**, char**) = &WaitPassively;

}  // namespace
